#!/usr/bin/python3
"""tools/demo goes through to its end, on nodes that the kernel keeps to the system calls of a node."""
import contextlib
import pathlib
import signal
import subprocess
import threading
import unittest

from harness import MESHD, SLOW, SOURCE, _libc, clean_environment
from hosts import run

BUILD = pathlib.Path(MESHD).parents[2]


def end_with_parent():
    _libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: it takes its nodes down then


def look(session, modes):
    """How each node of that session is now, by its process: 2 is a filter, 0 one that is at its start."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            name, _, rest = process.joinpath("stat").read_text("ascii", "replace").partition("(")[2].rpartition(")")
            if name == "meshd" and rest.split()[0] != "Z" and int(rest.split()[3]) == session:
                lines = process.joinpath("status").read_text("ascii", "replace").splitlines()
                modes |= {process.name: int(line.split()[1]) for line in lines if line.startswith("Seccomp:")}


class Demo(unittest.TestCase):
    def test_the_demo_runs_to_its_end_in_the_sandbox(self):
        process = subprocess.Popen([SOURCE / "tools/demo", "--build", BUILD], stdin=subprocess.DEVNULL, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_environment(),
                                   start_new_session=True, preexec_fn=end_with_parent)
        modes, over = {}, threading.Event()

        def watch():
            while not over.wait(0.05):
                look(process.pid, modes)
        watching = threading.Thread(target=watch)
        watching.start()
        try:
            with process.stdout as out:
                said = out.read()
        finally:
            over.set()
            watching.join()
        self.assertEqual(process.wait(30 * SLOW), 0, said)
        self.assertIn("That was meshd.", said)
        self.assertNotIn("tools/demo: line", said)  # what bash itself has to say
        # Three, the third anew with a file, two with TLS; what ends at once may be seen before it is confined.
        self.assertGreaterEqual(list(modes.values()).count(2), 6, said)


if __name__ == "__main__":
    run()
