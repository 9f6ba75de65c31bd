// For quantize_test.py: counts the calls that change files, and at number FAULT_AT either kills the process
// (FAULT_ERRNO unset) or lets every write from there on fail with FAULT_ERRNO. Loaded with LD_PRELOAD.
// FAULT_LOG: a file that is given the number of calls when the process ends.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static long calls = 0;

static long number_of(const char *name) {
  const char *text = getenv(name);
  return text ? atol(text) : 0;
}

// Whether this call must fail (and errno is set).
static int fault(int is_write) {
  const long at = number_of("FAULT_AT");
  const long error = number_of("FAULT_ERRNO");
  ++calls;
  if (at == 0 || calls < at) return 0;
  if (error == 0) kill(getpid(), SIGKILL);
  if (!is_write) return 0;
  errno = (int)error;
  return 1;
}

__attribute__((destructor)) static void report(void) {
  const char *path = getenv("FAULT_LOG");
  FILE *file = path ? fopen(path, "w") : NULL;
  if (file == NULL) return;
  fprintf(file, "%ld\n", calls);
  fclose(file);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t count) {
  if (fd > 2 && fault(1)) return -1;
  return REAL(write)(fd, bytes, count);
}
int fsync(int fd) { return fault(0), REAL(fsync)(fd); }
int rename(const char *from, const char *to) { return fault(0), REAL(rename)(from, to); }
int mkdir(const char *path, mode_t mode) { return fault(0), REAL(mkdir)(path, mode); }
int unlink(const char *path) { return fault(0), REAL(unlink)(path); }
int unlinkat(int dir, const char *path, int flags) { return fault(0), REAL(unlinkat)(dir, path, flags); }
