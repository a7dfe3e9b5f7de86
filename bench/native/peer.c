/*
 * The native side of `npm run bench:peers`: the same loops as bench/peers/loops.ts over whatever
 * malloc and free this process was started with (the C library's, or a preloaded one).
 *
 * Standard input: one command a line, "WORKLOAD SIZE THREADS OPERATIONS", operations per thread.
 * Standard output: first "ready <library that holds malloc> <libc version> <order check sum>",
 * then one line per command, the nanoseconds the slowest thread took.
 *
 * A command for one thread runs on the main thread, and the second thread is only started by the
 * first command that wants it: C libraries take shorter paths while a process has one thread, and
 * a process that never used two shall get them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SMALL_BATCH = 16, LARGE_BATCH = 1000, HUGE_BATCH = 10000, RING_SLOTS = 4096, PUBLISH_EVERY = 32, SPINS = 1000 };

/* bench/peers/plan.ts derives the same order from the same seed. */
static const uint32_t ORDER_SEED = 0x9e3779b9u;
static uint32_t order[LARGE_BATCH];

static struct {
  _Alignas(256) atomic_size_t head;
  _Alignas(256) atomic_size_t tail;
  _Alignas(256) void *slots[RING_SLOTS];
} ring;

static struct {
  char workload[32];
  size_t size;
  int threads;
  long operations;
} command;

static pthread_barrier_t begin, end;
static atomic_int lined_up;
static uint64_t elapsed[2];

static void fail(const char *what) {
  fprintf(stderr, "peer: %s\n", what);
  exit(1);
}

static inline int *allocate(size_t size) {
  int *p = malloc(size);
  if (!p) fail("out of memory");
  return p;
}

/* Through volatile, so that neither the store nor the block it goes to can be optimised away. */
static inline void write_first_word(int *p, long value) { *(volatile int *)p = (int)value; }

static void make_order(void) {
  uint32_t x = ORDER_SEED;
  for (uint32_t i = 0; i < LARGE_BATCH; i++) order[i] = i;
  for (uint32_t i = LARGE_BATCH - 1; i > 0; i--) {
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    uint32_t j = x % (i + 1), t = order[i];
    order[i] = order[j];
    order[j] = t;
  }
}

static uint32_t order_check_sum(void) {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < LARGE_BATCH; i++) sum += (i + 1) * order[i];
  return sum;
}

static __attribute__((noinline)) void pair(size_t size, long n) {
  for (long i = 0; i < n; i++) {
    int *p = allocate(size);
    write_first_word(p, i);
    free(p);
  }
}

static __attribute__((noinline)) void batch_16(size_t size, long n) {
  int *kept[SMALL_BATCH];
  for (long i = 0; i < n; i += SMALL_BATCH) {
    for (int j = 0; j < SMALL_BATCH; j++) {
      int *p = allocate(size);
      write_first_word(p, i);
      kept[j] = p;
    }
    for (int j = 0; j < SMALL_BATCH; j++) free(kept[j]);
  }
}

static __attribute__((noinline)) void batch_1000(size_t size, long n) {
  int *kept[LARGE_BATCH];
  for (long i = 0; i < n; i += LARGE_BATCH) {
    for (int j = 0; j < LARGE_BATCH; j++) {
      int *p = allocate(size);
      write_first_word(p, i);
      kept[j] = p;
    }
    for (int j = 0; j < LARGE_BATCH; j++) free(kept[j]);
  }
}

static __attribute__((noinline)) void batch_10000(size_t size, long n) {
  int *kept[HUGE_BATCH];
  for (long i = 0; i < n; i += HUGE_BATCH) {
    for (int j = 0; j < HUGE_BATCH; j++) {
      int *p = allocate(size);
      write_first_word(p, i);
      kept[j] = p;
    }
    for (int j = 0; j < HUGE_BATCH; j++) free(kept[j]);
  }
}

static __attribute__((noinline)) void shuffled_1000(size_t size, long n) {
  int *kept[LARGE_BATCH];
  for (long i = 0; i < n; i += LARGE_BATCH) {
    for (int j = 0; j < LARGE_BATCH; j++) {
      int *p = allocate(size);
      write_first_word(p, i);
      kept[j] = p;
    }
    for (int j = 0; j < LARGE_BATCH; j++) free(kept[order[j]]);
  }
}

/* The value of `counter` once it differs from `seen`. */
static size_t await_change(atomic_size_t *counter, size_t seen) {
  for (int spins = 0;; spins++) {
    size_t now = atomic_load_explicit(counter, memory_order_acquire);
    if (now != seen) return now;
    if (spins >= SPINS) sched_yield();
  }
}

static __attribute__((noinline)) void produce(size_t size, long n) {
  size_t head = atomic_load_explicit(&ring.head, memory_order_relaxed);
  size_t tail = atomic_load_explicit(&ring.tail, memory_order_acquire);
  for (long i = 0; i < n; i++) {
    int *p = allocate(size);
    write_first_word(p, i);
    if (head - tail == RING_SLOTS) tail = await_change(&ring.tail, tail);
    ring.slots[head % RING_SLOTS] = p;
    head++;
    if (head % PUBLISH_EVERY == 0) atomic_store_explicit(&ring.head, head, memory_order_release);
  }
}

static __attribute__((noinline)) void consume(long n) {
  size_t tail = atomic_load_explicit(&ring.tail, memory_order_relaxed);
  size_t head = tail;
  uint32_t sum = 0;
  for (long i = 0; i < n; i++) {
    if (tail == head) head = await_change(&ring.head, head);
    int *p = ring.slots[tail % RING_SLOTS];
    sum += (uint32_t) * (volatile int *)p;
    free(p);
    tail++;
    if (tail % PUBLISH_EVERY == 0) atomic_store_explicit(&ring.tail, tail, memory_order_release);
  }
  if (sum != (uint32_t)((uint64_t)n * (uint64_t)(n - 1) / 2)) fail("the words read are not the words written");
}

static void work(int thread) {
  const char *w = command.workload;
  size_t size = command.size;
  long n = command.operations;
  if (!strcmp(w, "pair")) pair(size, n);
  else if (!strcmp(w, "batch-16")) batch_16(size, n);
  else if (!strcmp(w, "batch-1000")) batch_1000(size, n);
  else if (!strcmp(w, "batch-10000")) batch_10000(size, n);
  else if (!strcmp(w, "shuffled-1000")) shuffled_1000(size, n);
  else if (!strcmp(w, "producer-consumer")) thread == 0 ? produce(size, n) : consume(n);
  else fail("unknown workload");
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void timed(int thread) {
  uint64_t start = now_ns();
  work(thread);
  elapsed[thread] = now_ns() - start;
}

/* The barrier wakes the sleeper; the line-up makes both start within a cache miss of each other. */
static void timed_together(int thread) {
  pthread_barrier_wait(&begin);
  atomic_fetch_add(&lined_up, 1);
  while (atomic_load(&lined_up) < 2) sched_yield();
  timed(thread);
  pthread_barrier_wait(&end);
}

static void *second_thread(void *unused) {
  (void)unused;
  for (;;) timed_together(1);
  return NULL;
}

static uint64_t run_on_two_threads(void) {
  static int started;
  if (!started) {
    pthread_t t;
    pthread_barrier_init(&begin, NULL, 2);
    pthread_barrier_init(&end, NULL, 2);
    if (pthread_create(&t, NULL, second_thread, NULL)) fail("no second thread");
    started = 1;
  }
  atomic_store(&lined_up, 0);
  timed_together(0);
  return elapsed[0] > elapsed[1] ? elapsed[0] : elapsed[1];
}

static uint64_t run_on_one_thread(void) {
  timed(0);
  return elapsed[0];
}

static void announce(void) {
  Dl_info info;
  void *symbol = dlsym(RTLD_DEFAULT, "malloc");
  const char *library = symbol && dladdr(symbol, &info) && info.dli_fname ? info.dli_fname : "unknown";
  printf("ready %s %s %u\n", library, gnu_get_libc_version(), order_check_sum());
}

int main(void) {
  char line[128];
  make_order();
  announce();
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    if (sscanf(line, "%31s %zu %d %ld", command.workload, &command.size, &command.threads, &command.operations) != 4)
      fail("a command is: WORKLOAD SIZE THREADS OPERATIONS");
    if (command.threads != 1 && command.threads != 2) fail("threads are 1 or 2");
    uint64_t ns = command.threads == 2 ? run_on_two_threads() : run_on_one_thread();
    printf("%llu\n", (unsigned long long)ns);
    fflush(stdout);
  }
  return 0;
}
