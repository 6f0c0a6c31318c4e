"""A process that judges untrusted text within a bound of CPU time and memory; `workbench.tasks.answers` drives it.

Messages are JSON behind 8 bytes of length (big-endian). A request is {"job", "seconds", "arguments"}, a reply
{"result"} or {"error"}. A job that reaches a bound ends the process after the reply, or without one where only the
system could stop it; the driver then starts another.
"""

import importlib
import json
import os
import signal
import sys

try:
    import resource
except ImportError:  # no such limits on this system; the driver's limit on wall time remains
    resource = None

JOBS = {
    "math": ("judge_math", "judge"),
    "reasoning": ("judge_reasoning", "judge"),
    "generate": ("judge_reasoning", "generate"),
    "instructions": ("judge_instructions", "judge"),
    "instruction_faults": ("judge_instructions", "faults"),
}
"""What can be asked -> module and function."""


class OutOfTime(BaseException):
    """The job's CPU time is over. Not an `Exception`, so that libraries do not take it for an error of theirs."""


def _out_of_time(_number, _frame):
    raise OutOfTime


def _limit_memory(megabytes: int) -> None:
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, hard))


def _start_clock(seconds: float) -> None:
    """Raise `OutOfTime` after `seconds` of CPU time, again and again; the system kills what does not listen."""
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)
    if resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        limit = int(used.ru_utime + used.ru_stime + seconds) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def _stop_clock() -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)


def _answer(request: dict) -> tuple[dict, bool]:
    """The reply, and whether this process goes on afterwards."""
    try:
        module, function = JOBS[request["job"]]
        judge = getattr(importlib.import_module(module), function)  # importing is not the job's time
        try:
            _start_clock(request["seconds"])
            result = judge(**request["arguments"])
        finally:
            _stop_clock()
        return {"result": result}, True
    except OutOfTime:
        return {"error": "time"}, False
    except MemoryError:
        return {"error": "memory"}, False
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}, True


def main() -> None:
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no reply
    _limit_memory(int(sys.argv[1]))
    signal.signal(signal.SIGPROF, _out_of_time)
    going_on = True
    while going_on and len(header := requests.read(8)) == 8:
        reply, going_on = _answer(json.loads(requests.read(int.from_bytes(header))))
        payload = json.dumps(reply).encode()
        replies.write(len(payload).to_bytes(8) + payload)
        replies.flush()


if __name__ == "__main__":
    main()
