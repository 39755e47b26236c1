/*
 * ds01-init: process 1 of a container. It reaps, waits, and passes a stop on to every process of the container.
 *
 * It needs no arguments, no library, no shell and no file of the image, so it works in any image.
 *
 *   SIGTERM, SIGINT, SIGHUP, SIGQUIT   a stop: SIGTERM, then SIGCONT, goes once to every process of the container, also to
 *                                      those that `docker exec` brought in and those in sessions of their own. SIGCONT,
 *                                      because a stopped process acts on SIGTERM only when it runs again. A second stop
 *                                      signal is passed on again.
 *   everything gone after a stop       it exits with 0. A container that had to be killed shows 137, so 0 means: all said
 *                                      goodbye in time. With nothing else there it exits at once.
 *   everything gone without a stop     it goes on waiting: a container lives until somebody stops it.
 *
 * An interactive shell ignores SIGTERM and would hold up every stop until the grace is over. When nothing is left but such
 * shells (leaders of a session on a terminal, ignoring SIGTERM) in two looks running, they get the SIGHUP that a closing
 * terminal sends. A job in them has ended by then, and whoever sits there has read its last words.
 *
 * It does not restart anything, does not log, and does not decide when to kill: the engine does, when the grace is over.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The waits between two looks after a stop: the end of an exec'ed process raises no SIGCHLD here, its parent is outside. */
enum { FIRST_LOOK_NS = 5000000, LAST_LOOK_NS = 100000000 };

/* One look may fall between two commands of a line; a shell that shows nothing below it twice is waiting at its prompt. */
enum { LOOKS_AT_A_PROMPT = 2 };

static const int stop_signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};

static void reap(void) {
    pid_t pid;
    do
        pid = waitpid(-1, NULL, WNOHANG);
    while (pid > 0 || (pid < 0 && errno == EINTR));
}

/* kill(-1, …) reaches every process of this pid namespace but the caller; ESRCH says that there is none. */
static bool alone(void) {
    return kill(-1, 0) < 0 && errno == ESRCH;
}

static void pass_on_stop(void) {
    (void)kill(-1, SIGTERM);
    (void)kill(-1, SIGCONT);
}

static void hang_up(void) {
    (void)kill(-1, SIGHUP);
    (void)kill(-1, SIGCONT);
}

/* Reads a small file under /proc as a string; false when the process is gone. */
static bool read_proc(const char *pid, const char *name, char *text, size_t size) {
    char path[64] = "/proc/";
    if (strlen(pid) + strlen(name) + 8 > sizeof path)
        return false;
    (void)strcat(strcat(strcat(path, pid), "/"), name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, size - 1);
    (void)close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    return true;
}

/* A leader of a session that has a terminal, by /proc/PID/stat: "pid (comm) state ppid pgrp session tty_nr …". */
static bool leads_terminal_session(const char *pid) {
    char text[1024];
    if (!read_proc(pid, "stat", text, sizeof text))
        return false;
    char *at = strrchr(text, ')'); /* the command's name may hold brackets and blanks itself */
    if (at == NULL || at[1] != ' ' || at[2] == '\0')
        return false;
    at += 3;
    (void)strtol(at, &at, 10); /* parent */
    (void)strtol(at, &at, 10); /* process group */
    long session = strtol(at, &at, 10);
    long terminal = strtol(at, &at, 10);
    return terminal != 0 && session == strtol(pid, NULL, 10);
}

static bool ignores_sigterm(const char *pid) {
    char text[4096];
    if (!read_proc(pid, "status", text, sizeof text))
        return false;
    const char *line = strstr(text, "\nSigIgn:");
    if (line == NULL)
        return false;
    return (strtoull(line + strlen("\nSigIgn:"), NULL, 16) >> (SIGTERM - 1) & 1U) != 0;
}

/* True when at least one other process is left and every one of them is a shell waiting at its prompt. */
static bool only_shells_left(void) {
    DIR *proc = opendir("/proc");
    if (proc == NULL)
        return false;
    bool some = false;
    bool only = true;
    const struct dirent *entry;
    while (only && (entry = readdir(proc)) != NULL) {
        const char *pid = entry->d_name;
        if (pid[0] < '1' || pid[0] > '9' || strcmp(pid, "1") == 0)
            continue;
        some = true;
        only = ignores_sigterm(pid) && leads_terminal_session(pid);
    }
    (void)closedir(proc);
    return some && only;
}

/* Waits for a signal, at most ns nanoseconds when that is not 0. Returns it, or 0 when time is over. */
static int wait_signal(const sigset_t *signals, long ns) {
    const struct timespec limit = {.tv_sec = 0, .tv_nsec = ns};
    int got = sigtimedwait(signals, NULL, ns == 0 ? NULL : &limit);
    return got < 0 ? 0 : got;
}

int main(void) {
    if (getpid() != 1) { /* kill(-1, …) from anywhere else would reach far beyond one container */
        static const char words[] = "ds01-init: cannot run: not process 1 of a container\n";
        (void)!write(STDERR_FILENO, words, sizeof words - 1);
        return 1;
    }
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGCHLD);
    for (size_t i = 0; i < sizeof stop_signals / sizeof *stop_signals; i++)
        (void)sigaddset(&signals, stop_signals[i]);
    /* Blocked, because the kernel drops what process 1 neither handles nor blocks. An inherited "ignore" is undone: with
     * it SIGCHLD would never come. */
    (void)sigprocmask(SIG_SETMASK, &signals, NULL);
    (void)signal(SIGCHLD, SIG_DFL);

    bool stopping = false;
    int looks_at_shells = 0;
    long look_ns = FIRST_LOOK_NS;
    for (;;) {
        reap();
        if (stopping && alone())
            return 0;
        int got = wait_signal(&signals, stopping ? look_ns : 0);
        if (got == 0) {
            looks_at_shells = stopping && only_shells_left() ? looks_at_shells + 1 : 0;
            if (looks_at_shells == LOOKS_AT_A_PROMPT)
                hang_up();
            look_ns = look_ns * 2 < LAST_LOOK_NS ? look_ns * 2 : LAST_LOOK_NS;
        } else if (got != SIGCHLD) {
            stopping = true;
            look_ns = FIRST_LOOK_NS;
            pass_on_stop();
        }
    }
}
