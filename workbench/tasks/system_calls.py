"""The system call filter of the sandbox, as a BPF program for `prctl(PR_SET_SECCOMP)`.

Denied is what could reach around the other walls: watching or changing other processes, mounts and new namespaces,
memory that no limit counts (anonymous files, System V and POSIX queues), keys, sockets other than local ones, io_uring,
the clock, kernel modules. Such a call fails with EPERM; a program that does not need it never notices. Numbers are
those of the Linux headers `asm/unistd_64.h` (x86_64) and `asm-generic/unistd.h` (aarch64) (K).
"""

from __future__ import annotations

import errno
import struct

# System calls the program may not make, by machine (x86_64, aarch64); None: the machine has no such call.
DENIED = {
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272)},
    **{"process_madvise": (440, 440), "pidfd_getfd": (438, 438), "perf_event_open": (298, 241), "bpf": (321, 280)},
    **{"unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "chroot": (161, 51)},
    **{"pivot_root": (155, 41), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430)},
    **{"fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442)},
    **{"open_tree_attr": (467, 467), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265)},
    **{"memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196)},
    **{"msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "userfaultfd": (323, 282)},
    **{"io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "fanotify_init": (300, 262)},
    **{"kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "reboot": (169, 142)},
    **{"finit_module": (313, 273), "delete_module": (176, 106), "swapon": (167, 224), "swapoff": (168, 225)},
    **{"acct": (163, 89), "syslog": (103, 116), "quotactl": (179, 60), "quotactl_fd": (443, 443)},
    **{"settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266)},
    **{"personality": (135, 92), "vhangup": (153, 58), "sethostname": (170, 161), "setdomainname": (171, 162)},
    **{"move_pages": (279, 239), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None)},
}
CLONE, CLONE3, SOCKET, PRLIMIT, AF_UNIX = (56, 220), 435, (41, 198), (302, 261), 1
CLONE_NEW = 0x7E020000  # the flags of clone that ask for a new namespace
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def call_filter(machine: str) -> bytes:
    """The filter for a `machine` of `AUDIT_ARCH` (`platform.machine()`): an array of `struct sock_filter`.

    A call under a foreign architecture's convention kills the process; denied calls fail with EPERM; `clone3`, whose
    arguments a filter cannot see, with ENOSYS, so that the C library takes `clone`; everything else is allowed.
    """
    column = list(AUDIT_ARCH).index(machine)
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    number, architecture, first_argument = 0, 4, 16  # offsets in struct seccomp_data; low word on these machines
    allow, kill, refuse = 0x7FFF0000, 0x80000000, 0x00050000
    program = [(load, 0, 0, architecture), (equal, 1, 0, AUDIT_ARCH[machine]), (give, 0, 0, kill), (load, 0, 0, number)]
    if machine == "x86_64":  # a second calling convention with numbers of its own
        program += [(at_least, 0, 1, 0x40000000), (give, 0, 0, refuse | errno.EPERM)]
    for numbers in DENIED.values():
        if numbers[column] is not None:
            program += [(equal, 0, 1, numbers[column]), (give, 0, 0, refuse | errno.EPERM)]
    program += [(equal, 0, 1, CLONE3), (give, 0, 0, refuse | errno.ENOSYS)]  # the C library falls back to clone
    on_argument = [
        (CLONE, (any_bit, 0, 1, CLONE_NEW)),
        (SOCKET, (equal, 1, 0, AF_UNIX)),
        (PRLIMIT, (equal, 1, 0, 0)),  # only one's own limits
    ]
    for numbers, test in on_argument:
        program += [(equal, 0, 4, numbers[column]), (load, 0, 0, first_argument), test]
        program += [(give, 0, 0, refuse | errno.EPERM), (give, 0, 0, allow)]
    program.append((give, 0, 0, allow))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)
