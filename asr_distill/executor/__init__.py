"""Lists of independent jobs: one after another, over processes of this machine, or over a Dask cluster."""

from asr_distill.executor.base import Context, Executor, available_cpus
from asr_distill.executor.choose import ExecutorSettings, local_executor, open_executor, run_jobs
from asr_distill.executor.task import named

__all__ = ["Context", "Executor", "ExecutorSettings", "available_cpus", "local_executor", "named", "open_executor",
           "run_jobs"]
