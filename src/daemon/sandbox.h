/* sandbox - which system calls the kernel lets this process make from now on.
 *
 * A list of those that a node needs; beside it:
 * - what only an intruder would do (run a program, trace another process, mount, load code into the
 *   kernel, change user) ends the process with SIGSYS;
 * - anything else is answered as by a kernel that does not know it (ENOSYS; EAFNOSUPPORT for a
 *   family of sockets), so that libraries take their other way.
 * Memory is never writable and executable at once, processes are not begun, nor are signals sent to
 * others. Files stay open to whatever their permissions say: libc loads libraries and reads /etc
 * when it resolves names. Not in builds with sanitizers, which make calls of their own.
 */
#ifndef DAEMON_SANDBOX_H
#define DAEMON_SANDBOX_H

/* For this thread, those that run, and those that come; for good. 0, or a negative errno and
 * nothing has changed; -EOPNOTSUPP: not in this build. Wants PR_SET_NO_NEW_PRIVS, and sets it. */
int sandbox_enter(void);

#endif
