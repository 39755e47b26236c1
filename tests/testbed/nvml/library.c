/* A stand-in for the driver's libnvidia-ml.so.1: answers from the mapped state file, keeps nothing of its own.
 *
 * Tests only; never installed. It knows what a probe asks (cards, slices, processes, memory, events) and no call that
 * changes a card. Return codes and struct sizes are those of NVIDIA's public header.
 */
#define _GNU_SOURCE
#include "mock.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_STATE "/run/nvml-mock/state"

struct state *state;
static struct stat mapped_file;
static uint32_t generation; /* of the init that is in force, 0 = none */
static unsigned init_count;

API uint64_t mock_state_size(void);
uint64_t mock_state_size(void) { return sizeof(struct state); }

static int open_state(void) {
    const char *path = getenv("NVML_MOCK_STATE");
    struct stat seen;
    int fd = open(path ? path : DEFAULT_STATE, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &seen) != 0 || (uint64_t)seen.st_size != sizeof(struct state)) {
        if (fd >= 0) close(fd);
        return DRIVER_NOT_LOADED;
    }
    if (state && (seen.st_ino != mapped_file.st_ino || seen.st_dev != mapped_file.st_dev)) {
        munmap(state, sizeof *state);
        state = NULL;
    }
    if (!state) {
        void *map = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        state = map == MAP_FAILED ? NULL : map;
        mapped_file = seen;
    }
    close(fd);
    return state && state->magic == MOCK_MAGIC && state->size == sizeof *state ? SUCCESS : DRIVER_NOT_LOADED;
}

/* The first fault row that fits is used up by one; its delay and code happen here. */
static int fault(const char *function, int gpu) {
    for (int i = 0; i < MOCK_FAULTS; i++) {
        struct fault *f = &state->faults[i];
        if (!f->used || f->times == 0 || (f->gpu != -1 && f->gpu != gpu)) continue;
        if (strcmp(f->function, "*") != 0 && strcmp(f->function, function) != 0) continue;
        int code = f->code;
        uint64_t delay = f->delay;
        if (f->times > 0) __atomic_fetch_sub(&f->times, 1, __ATOMIC_SEQ_CST);
        struct timespec left = {.tv_sec = (time_t)(delay / 1000), .tv_nsec = (long)(delay % 1000) * 1000000};
        while (delay && nanosleep(&left, &left) != 0 && errno == EINTR) {}
        return code;
    }
    return SUCCESS;
}

int initialised(void) { return state && init_count && state->init_result == SUCCESS && state->generation == generation; }

int enter(const char *function, int gpu) {
    if (state) __atomic_fetch_add(&state->calls, 1, __ATOMIC_SEQ_CST);
    return initialised() ? fault(function, gpu) : UNINITIALIZED;
}

/* Which card or slice a handle means; handles are addresses inside the mapping, so a stale one is found out. */
int resolve(device_t handle, struct target *t) {
    uintptr_t base = state ? (uintptr_t)state->gpus : 0;
    uintptr_t offset = (uintptr_t)handle - base;
    if (!state || (uintptr_t)handle < base || offset >= sizeof state->gpus) return INVALID_ARGUMENT;
    t->gpu = &state->gpus[offset / sizeof(struct gpu)];
    t->slice = NULL;
    if (!t->gpu->present) return INVALID_ARGUMENT;
    uintptr_t inside = offset % sizeof(struct gpu);
    if (inside == 0) return SUCCESS;
    if (inside < offsetof(struct gpu, slices) || inside >= offsetof(struct gpu, processes)) return INVALID_ARGUMENT;
    inside -= offsetof(struct gpu, slices);
    t->slice = &t->gpu->slices[inside / sizeof(struct slice)];
    if (inside % sizeof(struct slice) || !t->gpu->mig || !t->slice->used) return INVALID_ARGUMENT;
    return SUCCESS;
}

int enter_device(const char *function, device_t handle, struct target *t) {
    int bad = resolve(handle, t);
    int rc = enter(function, bad ? -1 : (int)(t->gpu - state->gpus));
    if (rc || bad) return rc ? rc : bad;
    return t->gpu->lost ? GPU_IS_LOST : SUCCESS;
}

int text(char *to, unsigned room, const char *from) {
    return snprintf(to, room, "%s", from) < (int)room ? SUCCESS : INSUFFICIENT_SIZE;
}

/* --- the library -------------------------------------------------------------------------------------------- */

API int nvmlInitWithFlags(unsigned flags);
int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int rc = open_state();
    if (rc) return rc;
    __atomic_fetch_add(&state->calls, 1, __ATOMIC_SEQ_CST);
    if (state->init_result) return state->init_result;
    rc = fault("nvmlInitWithFlags", -1);
    if (rc) return rc;
    generation = state->generation;
    init_count++;
    return SUCCESS;
}

API int nvmlInit_v2(void);
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

API int nvmlShutdown(void);
int nvmlShutdown(void) {
    if (init_count) init_count--;
    return SUCCESS;
}

API const char *nvmlErrorString(int code);
const char *nvmlErrorString(int code) {
    switch (code) {
    case 19: return "In use by another client";
    case 23: return "Insufficient Resources";
    case 25: return "Argument version mismatch";
    default: return "Unknown Error";
    }
}

API int nvmlSystemGetDriverVersion(char *to, unsigned room);
int nvmlSystemGetDriverVersion(char *to, unsigned room) {
    int rc = enter(__func__, -1);
    return rc ? rc : text(to, room, state->driver);
}

API int nvmlSystemGetNVMLVersion(char *to, unsigned room);
int nvmlSystemGetNVMLVersion(char *to, unsigned room) { /* works without init */
    return state || open_state() == SUCCESS ? text(to, room, state->nvml) : DRIVER_NOT_LOADED;
}
