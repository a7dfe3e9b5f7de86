export {
  MMAP_MIN,
  TASK_SIZE,
  VM_EXEC,
  VM_GROWSDOWN,
  VM_READ,
  VM_WRITE,
  VmArea,
} from './layout.js';
export { type Area, type FaultStats, Mm } from './mm.js';
export { Mms } from './mms.js';
