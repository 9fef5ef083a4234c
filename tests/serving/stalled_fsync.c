/* A disk that does not answer, for LD_PRELOAD: fsync and fdatasync of files below STALL_UNDER return only
   when the file STALL_WHILE is gone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void wait_for_the_disk(int file)
{
    const char *mark = getenv("STALL_WHILE"), *under = getenv("STALL_UNDER");
    char link[64], path[PATH_MAX];
    if (mark == NULL || under == NULL)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path);
    if (length < (ssize_t)strlen(under) || strncmp(path, under, strlen(under)) != 0)
        return;
    while (access(mark, F_OK) == 0)
        usleep(20000);
}

int fsync(int file)
{
    wait_for_the_disk(file);
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}

int fdatasync(int file)
{
    wait_for_the_disk(file);
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(file);
}
