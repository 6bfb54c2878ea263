"""Lists of independent jobs: one after another, over threads, over processes, or over a Dask cluster."""

from asr_distill.executor.base import Context, Executor, available_cpus
from asr_distill.executor.choose import ExecutorSettings, local_executor, open_executor, run_jobs
from asr_distill.executor.task import named
from asr_distill.executor.threads import Threads

__all__ = ["Context", "Executor", "ExecutorSettings", "Threads", "available_cpus", "local_executor", "named",
           "open_executor", "run_jobs"]
