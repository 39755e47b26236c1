/* The mock's cards: who they are, their memory, processes and other figures. */
#define _GNU_SOURCE
#include "mock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

API int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetCount_v2(unsigned *count) {
    int rc = enter(__func__, -1);
    if (rc) return rc;
    *count = 0;
    for (unsigned i = 0; i < state->gpu_count; i++) *count += state->gpus[i].present != 0;
    return SUCCESS;
}

API int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
    int row = -1;
    for (unsigned i = 0; state && i < state->gpu_count; i++)
        if (state->gpus[i].present && state->gpus[i].index == index) row = (int)i;
    int rc = enter(__func__, row);
    if (rc || row < 0) return rc ? rc : INVALID_ARGUMENT;
    *device = &state->gpus[row];
    return state->gpus[row].lost ? GPU_IS_LOST : SUCCESS;
}

API int nvmlDeviceGetHandleByUUID(const char *uuid, device_t *device);
int nvmlDeviceGetHandleByUUID(const char *uuid, device_t *device) {
    int rc = enter(__func__, -1);
    if (rc) return rc;
    for (unsigned i = 0; i < state->gpu_count; i++) /* one lost card spoils the look-up of every other, as in the field */
        if (state->gpus[i].present && state->gpus[i].lost) return GPU_IS_LOST;
    for (unsigned i = 0; i < state->gpu_count; i++) {
        struct gpu *g = &state->gpus[i];
        if (!g->present) continue;
        if (strcmp(g->uuid, uuid) == 0) { *device = g; return SUCCESS; }
        for (int s = 0; g->mig && s < MOCK_SLICES; s++)
            if (g->slices[s].used && strcmp(g->slices[s].uuid, uuid) == 0) { *device = &g->slices[s]; return SUCCESS; }
    }
    return NOT_FOUND;
}

API int nvmlDeviceGetUUID(device_t device, char *to, unsigned room);
int nvmlDeviceGetUUID(device_t device, char *to, unsigned room) {
    ENTER(device);
    return text(to, room, t.slice ? t.slice->uuid : t.gpu->uuid);
}

API int nvmlDeviceGetName(device_t device, char *to, unsigned room);
int nvmlDeviceGetName(device_t device, char *to, unsigned room) {
    ENTER(device);
    return text(to, room, t.gpu->name);
}

API int nvmlDeviceGetIndex(device_t device, unsigned *index);
int nvmlDeviceGetIndex(device_t device, unsigned *index) {
    ENTER(device);
    *index = t.slice ? t.slice->index : t.gpu->index;
    return SUCCESS;
}

API int nvmlDeviceGetMinorNumber(device_t device, unsigned *minor);
int nvmlDeviceGetMinorNumber(device_t device, unsigned *minor) {
    ENTER_CARD(device);
    *minor = t.gpu->minor;
    return SUCCESS;
}

API int nvmlDeviceGetPciInfo_v3(device_t device, struct pci *pci);
int nvmlDeviceGetPciInfo_v3(device_t device, struct pci *pci) {
    ENTER_CARD(device);
    *pci = (struct pci){.bus = t.gpu->bus, .id = 0x233010de};
    snprintf(pci->legacy, sizeof pci->legacy, "0000:%02X:00.0", t.gpu->bus & 0xffu);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", t.gpu->bus & 0xffu);
    return SUCCESS;
}

API int nvmlDeviceGetP2PStatus(device_t one, device_t other, int what, int *status);
int nvmlDeviceGetP2PStatus(device_t one, device_t other, int what, int *status) {
    ENTER_CARD(one);
    struct target peer;
    int rc = resolve(other, &peer);
    if (rc) return rc;
    if (t.gpu->mig || peer.gpu->mig) return NOT_SUPPORTED;
    int joined = what == 2 && (t.gpu->nvlink >> (peer.gpu - state->gpus)) & 1;
    *status = joined ? 0 : 5; /* OK, or NOT_SUPPORTED */
    return SUCCESS;
}

/* --- figures ------------------------------------------------------------------------------------------------ */

static int listed(const struct process *p) { return p->lingers || kill((pid_t)p->pid, 0) == 0 || errno == EPERM; }

static int belongs(const struct target *t, const struct process *p) {
    return !t->slice || (p->gi == t->slice->gi && p->ci == t->slice->ci);
}

/* Memory in use: what is held without a process, and what the listed processes hold. */
static uint64_t in_use(const struct target *t) {
    uint64_t used = t->slice ? t->slice->held : t->gpu->held;
    for (int s = 0; !t->slice && s < MOCK_SLICES; s++)
        if (t->gpu->mig && t->gpu->slices[s].used) used += t->gpu->slices[s].held;
    for (uint32_t i = 0; i < t->gpu->process_count; i++) {
        const struct process *p = &t->gpu->processes[i];
        if (p->used != MOCK_NO_FIGURE && belongs(t, p) && listed(p)) used += p->used;
    }
    uint64_t total = t->slice ? t->slice->total : t->gpu->total;
    return used > total ? total : used;
}

API int nvmlDeviceGetMemoryInfo(device_t device, struct memory_v1 *memory);
int nvmlDeviceGetMemoryInfo(device_t device, struct memory_v1 *memory) {
    ENTER(device);
    memory->total = t.slice ? t.slice->total : t.gpu->total;
    memory->used = in_use(&t) + (t.slice ? 0 : t.gpu->reserved); /* v1 counts the reserved part as used */
    if (memory->used > memory->total) memory->used = memory->total;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

API int nvmlDeviceGetMemoryInfo_v2(device_t device, struct memory_v2 *memory);
int nvmlDeviceGetMemoryInfo_v2(device_t device, struct memory_v2 *memory) {
    ENTER(device);
    if (state->no_memory_v2) return FUNCTION_NOT_FOUND;
    if (memory->version != (2u << 24 | sizeof *memory)) return VERSION_MISMATCH;
    memory->total = t.slice ? t.slice->total : t.gpu->total;
    memory->reserved = t.slice ? 0 : t.gpu->reserved;
    memory->used = in_use(&t);
    memory->free = memory->total - memory->used - memory->reserved;
    return SUCCESS;
}

API int nvmlDeviceGetUtilizationRates(device_t device, struct utilization *rates);
int nvmlDeviceGetUtilizationRates(device_t device, struct utilization *rates) {
    ENTER(device);
    if (t.slice || t.gpu->mig) return NOT_SUPPORTED;
    *rates = (struct utilization){t.gpu->utilisation, t.gpu->utilisation_memory};
    return SUCCESS;
}

static int processes(const char *function, device_t device, uint32_t kind, unsigned *count, struct process_row *rows) {
    struct target t;
    int rc = enter_device(function, device, &t);
    if (rc) return rc;
    if (t.gpu->mig && !t.slice && state->no_permission) return NO_PERMISSION;
    unsigned room = rows ? *count : 0, found = 0;
    for (uint32_t i = 0; i < t.gpu->process_count; i++) {
        const struct process *p = &t.gpu->processes[i];
        if (p->kind != kind || !belongs(&t, p) || !listed(p)) continue;
        if (found < room) rows[found] = (struct process_row){p->pid, p->used, p->gi, p->ci};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#define PROCESS_LIST(name, kind)                                                           \
    API int name(device_t device, unsigned *count, struct process_row *rows);              \
    int name(device_t device, unsigned *count, struct process_row *rows) {                 \
        return processes(__func__, device, kind, count, rows);                             \
    }
PROCESS_LIST(nvmlDeviceGetComputeRunningProcesses_v3, KIND_COMPUTE)
PROCESS_LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, KIND_GRAPHICS)
PROCESS_LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, KIND_MPS)

#define CARD_FIGURE(name, type, field)              \
    API int name(device_t device, type *figure);    \
    int name(device_t device, type *figure) {       \
        ENTER_CARD(device);                         \
        *figure = t.gpu->field;                     \
        return SUCCESS;                             \
    }
CARD_FIGURE(nvmlDeviceGetPowerUsage, unsigned, power)
CARD_FIGURE(nvmlDeviceGetEnforcedPowerLimit, unsigned, power_limit)
typedef unsigned long long millijoules;
CARD_FIGURE(nvmlDeviceGetTotalEnergyConsumption, millijoules, energy)

API int nvmlDeviceGetTemperature(device_t device, int sensor, unsigned *degrees);
int nvmlDeviceGetTemperature(device_t device, int sensor, unsigned *degrees) {
    ENTER_CARD(device);
    if (sensor != 0) return INVALID_ARGUMENT;
    *degrees = t.gpu->temperature;
    return SUCCESS;
}
