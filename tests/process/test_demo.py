#!/usr/bin/python3
"""tools/demo goes through to its end, on nodes that the kernel keeps to the system calls of a node."""
import pathlib
import signal
import subprocess
import unittest

from harness import MESHD, SLOW, SOURCE, _libc, clean_environment
from hosts import run

BUILD = pathlib.Path(MESHD).parents[2]


def end_with_parent():
    _libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: it takes its nodes down then


def confined(session):
    """How each node of that session is: 2 is a filter."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = process.joinpath("stat").read_text("ascii", "replace").partition("(")[2].rpartition(")")
            if name == "meshd" and int(rest.split()[3]) == session:
                lines = process.joinpath("status").read_text("ascii", "replace").splitlines()
                found += [int(line.split()[1]) for line in lines if line.startswith("Seccomp:")]
        except FileNotFoundError:  # it has just ended
            pass
    return found


class Demo(unittest.TestCase):
    def test_the_demo_runs_to_its_end_in_the_sandbox(self):
        process = subprocess.Popen([SOURCE / "tools/demo", "--build", BUILD], stdin=subprocess.DEVNULL, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_environment(),
                                   start_new_session=True, preexec_fn=end_with_parent)
        said, modes = "", {}
        with process.stdout as out:
            for line in out:
                said += line
                if line.startswith(("All three know", "== Plaintext gets nothing")):
                    modes[line.split()[0]] = confined(process.pid)
        self.assertEqual(process.wait(30 * SLOW), 0, said)
        self.assertIn("That was meshd.", said)
        self.assertEqual(modes, {"All": [2] * 3, "==": [2] * 2}, said)


if __name__ == "__main__":
    run()
