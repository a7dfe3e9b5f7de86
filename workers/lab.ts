/** A thread of the lab's pools (src/lab/pool.ts): runs one job on one CPU. */
import { type LabJob, type LabResult, runJob } from '../src/lab/jobs.js';
import { type Answer, serve, type Task } from '../src/lab/member.js';

export default function lab(task: Task<LabJob>): Answer<LabResult> {
  return serve(task, runJob);
}
