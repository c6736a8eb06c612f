/* Real errors as a process sees them: loaded before the C library (LD_PRELOAD).
 *
 * A control file, shared by all processes of a drain, says what fails and where. The
 * process that makes the chosen durable step waits before it until it may continue, so
 * that a disturbance meets exactly that step. tests/soak/faults.py has the other end.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
  int32_t sync_error, read_error, write_error; /* an errno, or 0 */
  int32_t steps;                               /* durable steps so far */
  int32_t stop_at;                             /* the step that waits, or 0 */
  int32_t waits;                               /* 1 while it does */
  int64_t shift;                               /* seconds that the clock is ahead */
  char places[2][1024];                        /* below them reads and writes fail */
};

static volatile struct control *control;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("SOAK_CONTROL");
  int file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *found = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (found != MAP_FAILED) control = found;
  close(file);
}

static int below(const char *path) {
  for (int n = 0; n < 2; n++) {
    const char *place = (const char *)control->places[n];
    if (*place && !strncmp(path, place, strlen(place))) return 1;
  }
  return 0;
}

static int link_below(const char *link, const char *more) {
  char path[4200];
  ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  if (more && size + strlen(more) + 2 < sizeof path)
    strcat(strcat(path, "/"), more);
  return below(path);
}

static int descriptor_below(int descriptor, const char *more) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  return link_below(link, more);
}

static int path_below(int folder, const char *path) {
  if (*path == '/') return below(path);
  return folder == AT_FDCWD ? link_below("/proc/self/cwd", path)
                            : descriptor_below(folder, path);
}

static void step(void) {
  if (!control) return;
  int32_t mine = __atomic_add_fetch(&control->steps, 1, __ATOMIC_SEQ_CST);
  if (mine != control->stop_at) return;
  control->waits = 1;
  struct timespec pause = {0, 1000000};
  for (int n = 0; n < 20000 && control->waits; n++)
    syscall(SYS_nanosleep, &pause, NULL);
}

#define FAIL(field, condition)                                   \
  do {                                                           \
    if (control && control->field && (condition)) {              \
      errno = control->field;                                    \
      return -1;                                                 \
    }                                                            \
  } while (0)

int fsync(int file) {
  step();
  FAIL(sync_error, descriptor_below(file, NULL));
  return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
  step();
  FAIL(sync_error, descriptor_below(file, NULL));
  return (int)syscall(SYS_fdatasync, file);
}

ssize_t read(int file, void *data, size_t size) {
  FAIL(read_error, descriptor_below(file, NULL));
  return syscall(SYS_read, file, data, size);
}

ssize_t pread64(int file, void *data, size_t size, off64_t at) {
  FAIL(read_error, descriptor_below(file, NULL));
  return syscall(SYS_pread64, file, data, size, at);
}

ssize_t pread(int file, void *data, size_t size, off_t at) {
  return pread64(file, data, size, at);
}

ssize_t write(int file, const void *data, size_t size) {
  FAIL(write_error, descriptor_below(file, NULL));
  return syscall(SYS_write, file, data, size);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
  FAIL(write_error, descriptor_below(file, NULL));
  return syscall(SYS_pwrite64, file, data, size, at);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
  return pwrite64(file, data, size, at);
}

int ftruncate64(int file, off64_t size) {
  FAIL(write_error, descriptor_below(file, NULL));
  return (int)syscall(SYS_ftruncate, file, size);
}

int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

static int open_any(int folder, const char *path, int flags, mode_t mode) {
  FAIL(write_error,
       (flags & (O_ACCMODE | O_CREAT | O_TRUNC)) && path_below(folder, path));
  return (int)syscall(SYS_openat, folder, path, flags, mode);
}

#define OPEN(name, parameters, folder)                                  \
  int name parameters {                                                 \
    mode_t mode = 0;                                                    \
    if (flags & (O_CREAT | O_TMPFILE)) {                                \
      va_list rest;                                                     \
      va_start(rest, flags);                                            \
      mode = va_arg(rest, mode_t);                                      \
      va_end(rest);                                                     \
    }                                                                   \
    return open_any(folder, path, flags, mode);                         \
  }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD)
OPEN(openat, (int folder, const char *path, int flags, ...), folder)
OPEN(openat64, (int folder, const char *path, int flags, ...), folder)

int renameat(int from, const char *old, int to, const char *path) {
  step();
  FAIL(write_error, path_below(from, old) || path_below(to, path));
  return (int)syscall(SYS_renameat2, from, old, to, path, 0);
}

int rename(const char *old, const char *path) {
  return renameat(AT_FDCWD, old, AT_FDCWD, path);
}

int linkat(int from, const char *old, int to, const char *path, int flags) {
  step();
  FAIL(write_error, path_below(to, path));
  return (int)syscall(SYS_linkat, from, old, to, path, flags);
}

int link(const char *old, const char *path) {
  return linkat(AT_FDCWD, old, AT_FDCWD, path, 0);
}

int unlinkat(int folder, const char *path, int flags) {
  step();
  FAIL(write_error, path_below(folder, path));
  return (int)syscall(SYS_unlinkat, folder, path, flags);
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int mkdirat(int folder, const char *path, mode_t mode) {
  FAIL(write_error, path_below(folder, path));
  return (int)syscall(SYS_mkdirat, folder, path, mode);
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

struct dirent64 *readdir64(DIR *folder) {
  static struct dirent64 *(*next)(DIR *);
  if (!next) next = (struct dirent64 * (*)(DIR *)) dlsym(RTLD_NEXT, "readdir64");
  if (control && control->read_error && descriptor_below(dirfd(folder), NULL)) {
    errno = control->read_error;
    return NULL;
  }
  return next(folder);
}

struct dirent *readdir(DIR *folder) { return (struct dirent *)readdir64(folder); }

int clock_gettime(clockid_t clock, struct timespec *now) {
  int done = (int)syscall(SYS_clock_gettime, clock, now);
  if (!done && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += control->shift;
  return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec found;
  int done = clock_gettime(CLOCK_REALTIME, &found);
  now->tv_sec = found.tv_sec;
  now->tv_usec = found.tv_nsec / 1000;
  return done;
}

time_t time(time_t *result) {
  struct timespec found;
  clock_gettime(CLOCK_REALTIME, &found);
  if (result) *result = found.tv_sec;
  return found.tv_sec;
}
