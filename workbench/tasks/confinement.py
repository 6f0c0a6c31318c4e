"""The inside of the sandbox: a program of its own, run as `python -I -S confinement.py`; standard library only.

It reads one JSON line that says what to confine, moves into fresh Linux namespaces (user, mount, process, network, IPC,
host name, cgroup), answers `{"ready": true}` or `{"refused": reason}`, and then runs the program once for every further
line `{"stdin": text}`, answering with what came of it. As first process of its process namespace it is the only one
that outlives a run: everything else is killed before the next run, and everything is killed when it ends.

The program sees a read-only file system that holds the interpreter and the system libraries, an empty `/tmp` of bounded
size that is thrown away after the run, no `/proc`, no `/sys`, no network device that is up, and no privilege; a system
call filter takes away what could reach around that (tracing, mounting, new namespaces, keys, sockets other than local
ones, memory that no limit counts). Time, memory and output are limited for the tree of processes as a whole.
"""

import base64
import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import struct
import sys
import time

NOBODY = 65534
TICK = 0.02  # seconds between two looks at the memory and CPU time of the tree
KEPT_ERRORS = 2000  # bytes of stderr reported
CLONE_NEW = 0x7E020000  # user, mount, process, network, IPC, host name and cgroup namespaces
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 1, 38, 22, 2
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """This machine does not allow what the sandbox is made of."""


def checked(what, result):
    """The result of a libc call, or `Refused` with the step that failed."""
    if result == -1:
        number = ctypes.get_errno()
        raise Refused(f"{what}: {os.strerror(number)} ({errno.errorcode.get(number, number)})")
    return result


def mount(source, target, kind, flags, options=""):
    arguments = [value.encode() if value is not None else None for value in (source, target, kind)]
    checked(f"mounting {target}", libc.mount(*arguments, ctypes.c_ulong(flags), options.encode()))


def enter_namespaces():
    """Move this process into new namespaces; its first child will be the first process of the new process namespace."""
    user, group = os.getuid(), os.getgid()
    map_read, map_write = os.pipe()
    parent = os.getpid()
    helper = os.fork()
    if not helper:  # stays outside: only there may it map more than one identity
        os.close(map_write)
        os._exit(0 if os.read(map_read, 1) and write_maps(parent, user, group) else 1)
    os.close(map_read)
    try:
        checked("creating namespaces", libc.unshare(CLONE_NEW))
        os.write(map_write, b"1")
    finally:
        os.close(map_write)
        status = os.waitpid(helper, 0)[1]
    if status:
        raise Refused("the identities of the user namespace could not be mapped")


def write_maps(pid, user, group):
    """Root keeps itself and `nobody`, which the program becomes; anyone else appears as `nobody` and is no one else."""
    try:
        lines = ["0 0 1", f"{NOBODY} {NOBODY} 1"] if user == 0 else [f"{NOBODY} {user} 1"]
        groups = ["0 0 1", f"{NOBODY} {NOBODY} 1"] if user == 0 else [f"{NOBODY} {group} 1"]
        if user:
            _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/uid_map", "\n".join(lines))
        _write(f"/proc/{pid}/gid_map", "\n".join(groups))
        return True
    except OSError:
        return False


def _write(path, text):
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def build_root(setup):
    """Replace the file system by what the program may see; returns a descriptor of the process table."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
    processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    root = "/proc"  # the one directory that exists everywhere and holds nothing that is needed from here on
    mount("root", root, "tmpfs", MS_NOSUID, "size=16m,mode=755")
    for path in setup["visible"]:
        expose(path, root)
    for path in DEVICES:
        os.makedirs(root + "/dev", exist_ok=True)
        os.close(os.open(root + path, os.O_CREAT | os.O_WRONLY))
        mount(path, root + path, None, MS_BIND)
    os.mkdir(root + "/program")
    for name, text in setup["files"].items():
        with open(f"{root}/program/{name}", "wb") as file:
            file.write(text.encode("utf-8", "surrogatepass"))
    os.makedirs(root + "/tmp", exist_ok=True)
    os.chdir(root)
    checked("changing the root directory", libc.syscall(setup["pivot_root"], b".", b"."))
    checked("letting go of the old root directory", libc.umount2(b".", MNT_DETACH))
    os.chdir("/")
    mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    return processes


def expose(path, root):
    """Show a file, directory or symbolic link of the old file system at the same place of the new one, read-only."""
    target = root + path
    if os.path.lexists(target) or not os.path.lexists(path):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    mount(path, target, None, MS_BIND | MS_REC)
    attributes = struct.pack("4Q", MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0)
    result = libc.syscall(MOUNT_SETATTR, AT_FDCWD, target.encode(), AT_RECURSIVE, attributes, len(attributes))
    checked(f"making {path} read-only", result)


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def start_program(setup, rules, streams, processes):
    """The forked child's way into the program: identity, limits, filter, exec. Never returns."""
    try:
        os.setsid()
        _write_at(processes, "self/oom_score_adj", "1000")
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, 1024)
        os.chdir("/tmp")
        for name, value in setup["rlimits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        if os.getuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        checked("no new privileges", libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        program = Program(len(rules) // 8, rules)
        checked("filtering", libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0))
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                libc.signal(number, ctypes.c_void_p(0))
        os.execve(setup["command"][0], setup["command"], setup["environment"])
    except BaseException as error:
        os.write(2, f"the sandbox could not start the program: {error}\n".encode())
    os._exit(127)


def _write_at(directory, path, text):
    descriptor = os.open(path, os.O_WRONLY, dir_fd=directory)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def _read_at(directory, path):
    descriptor = os.open(path, os.O_RDONLY, dir_fd=directory)
    try:
        return os.read(descriptor, 4096).decode()
    finally:
        os.close(descriptor)


def usage(processes):
    """(CPU seconds, resident bytes, number) of all processes but this one; bytes shared by several count once if the
    plain sum is not small."""
    ticks, resident, found = 0, 0, []
    for name in os.listdir(processes):
        if not name.isdigit() or name == "1":
            continue
        try:
            fields = _read_at(processes, f"{name}/stat").rpartition(")")[2].split()
            resident += int(_read_at(processes, f"{name}/statm").split()[1]) * resource.getpagesize()
        except (OSError, IndexError):
            continue  # gone meanwhile
        ticks += sum(int(field) for field in fields[11:15])
        found.append(name)
    return ticks / os.sysconf("SC_CLK_TCK"), resident, found


def proportional(processes, names):
    """Bytes of the named processes, a page shared by n of them counted as 1/n in each."""
    total = 0
    for name in names:
        try:
            lines = _read_at(processes, f"{name}/smaps_rollup").splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def exceeded(setup, processes, reaped_before):
    """Which limit of the whole tree is exceeded now, or None."""
    seconds, resident, names = usage(processes)
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    if seconds + own.ru_utime + own.ru_stime - reaped_before > setup["cpu_s"]:
        return "cpu"
    space = os.statvfs("/tmp")
    scratch = (space.f_blocks - space.f_bfree) * space.f_frsize
    if resident + scratch > setup["memory_bytes"] and proportional(processes, names) + scratch > setup["memory_bytes"]:
        return "memory"
    return None


def end_everything():
    """Kill every process but this one and take them off the process table."""
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        try:
            while os.waitpid(-1, 0):
                pass
        except ChildProcessError:
            return


class Run:
    """One run of the program: its streams, its main process, and what it has written so far."""

    def __init__(self, setup, rules, processes, stdin):
        self.setup, self.processes = setup, processes
        self.stdin, self.output, self.errors = memoryview(stdin), bytearray(), bytearray()
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.reaped_before = own.ru_utime + own.ru_stime
        self.started = time.monotonic()
        ends = [os.pipe() for _ in range(3)]
        self.streams = [ends[0][1], ends[1][0], ends[2][0]]
        theirs = [ends[0][0], ends[1][1], ends[2][1]]
        self.pid = os.fork()
        if not self.pid:
            start_program(setup, rules, theirs, processes)
        for stream in theirs:
            os.close(stream)
        for stream in self.streams:
            os.set_blocking(stream, False)
        self.exit = os.pidfd_open(self.pid)

    def watch(self):
        """Feed and read the program until it ends or breaks a limit; returns what ended it."""
        poll = select.poll()
        feed, output, errors = self.streams
        for stream in (output, errors, self.exit):
            poll.register(stream, select.POLLIN)
        poll.register(feed, select.POLLOUT)
        next_look = self.started
        while True:
            now = time.monotonic()
            if now >= next_look:
                reason = exceeded(self.setup, self.processes, self.reaped_before)
                if reason:
                    return reason
                next_look = time.monotonic() + TICK
            if now - self.started > self.setup["wall_s"]:
                return "time"
            ready = {stream for stream, _ in poll.poll(TICK * 1000)}
            for stream in ready & {output, errors}:
                self._read(stream, poll)
            if len(self.output) + len(self.errors) > self.setup["output_bytes"]:
                return "output"
            if feed in ready:
                self._feed(feed, poll)
            if self.exit in ready:
                return "exit"

    def _read(self, stream, poll):
        try:
            data = os.read(stream, 65536)
        except BlockingIOError:
            return
        if not data:
            poll.unregister(stream)
        (self.output if stream == self.streams[1] else self.errors).extend(data)

    def _feed(self, stream, poll):
        try:
            self.stdin = self.stdin[os.write(stream, self.stdin[:65536]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.stdin = self.stdin[:0]
        if not self.stdin:
            poll.unregister(stream)
            os.close(stream)
            self.streams[0] = None

    def finish(self, reason):
        """Kill what is left of the tree and describe the run."""
        status = None
        if reason == "exit":
            status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        end_everything()
        for stream, kept in zip(self.streams[1:], (self.output, self.errors), strict=True):
            while len(self.output) <= self.setup["output_bytes"]:
                data = self._rest(stream)
                if not data:
                    break
                kept.extend(data)
        if reason == "exit" and len(self.output) > self.setup["output_bytes"]:
            reason = "output"
        for stream in (*self.streams, self.exit):
            if stream is not None:
                os.close(stream)
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "ended": "cpu" if status == -signal.SIGXCPU else reason,
            "status": status,
            "stdout": base64.b64encode(self.output[: self.setup["output_bytes"]]).decode(),
            "stderr": base64.b64encode(self.errors[-KEPT_ERRORS:]).decode(),
            "wall_s": time.monotonic() - self.started,
            "cpu_s": own.ru_utime + own.ru_stime - self.reaped_before,
        }

    @staticmethod
    def _rest(stream):
        try:
            return os.read(stream, 65536)
        except BlockingIOError:
            return b""


def serve(setup):
    """The first process of the namespace: build the root, then run the program once for every request."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a handler, no signal from inside reaches the first process
    processes = build_root(setup)
    rules = base64.b64decode(setup["filter"])
    answer({"ready": True})
    for line in sys.stdin.buffer:
        stdin = json.loads(line)["stdin"].encode("utf-8", "surrogatepass")
        mount("scratch", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, setup["scratch"])
        run = Run(setup, rules, processes, stdin)
        outcome = run.finish(run.watch())
        checked("emptying the scratch directory", libc.umount2(b"/tmp", MNT_DETACH))
        answer(outcome)


def answer(message):
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


def main():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    setup = json.loads(sys.stdin.buffer.readline())
    try:
        enter_namespaces()
    except (Refused, OSError) as error:
        answer({"refused": str(error)})
        return
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return
    try:
        serve(setup)
    except (Refused, OSError) as error:
        answer({"refused": str(error)})
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
