/* Put before every file of the extension in the tests' build of it alone: each access to shared memory becomes a
 * point at which the process can be killed. The production build has neither these words nor the symbols.
 */
#ifndef CHANDLERY_FAULT_POINTS_H
#define CHANDLERY_FAULT_POINTS_H

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

void fault_point_stored(void);
void fault_point_loading(void);
void *fault_point_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset);
void *fault_point_copy(void *to, const void *from, size_t length);
long fault_point_syscall(long number, ...);

#define SEGMENT_STORED() fault_point_stored()
#define SEGMENT_LOADING() fault_point_loading()
/* Copies into shared memory are word by word, each word a store. */
#undef memcpy
#define memcpy(to, from, length) fault_point_copy(to, from, length)
#define mmap(at, length, protection, flags, fd, offset) fault_point_mmap(at, length, protection, flags, fd, offset)
#define syscall(...) fault_point_syscall(__VA_ARGS__)

#endif
