/* The mock's MIG slices: fixed ones; nothing here cuts a card. */
#include "mock.h"

#include <stddef.h>

API int nvmlDeviceGetMigMode(device_t device, unsigned *current, unsigned *pending);
int nvmlDeviceGetMigMode(device_t device, unsigned *current, unsigned *pending) {
    ENTER_CARD(device);
    if (!t.gpu->profiles[0].used) return NOT_SUPPORTED;
    *current = *pending = t.gpu->mig;
    return SUCCESS;
}

API int nvmlDeviceGetMaxMigDeviceCount(device_t device, unsigned *count);
int nvmlDeviceGetMaxMigDeviceCount(device_t device, unsigned *count) {
    ENTER_CARD(device);
    *count = 0;
    for (int i = 0; i < MOCK_PROFILES; i++)
        if (t.gpu->profiles[i].used && t.gpu->profiles[i].instances > *count) *count = t.gpu->profiles[i].instances;
    return SUCCESS;
}

API int nvmlDeviceGetMigDeviceHandleByIndex(device_t device, unsigned index, device_t *slice);
int nvmlDeviceGetMigDeviceHandleByIndex(device_t device, unsigned index, device_t *slice) {
    ENTER_CARD(device);
    if (!t.gpu->mig) return INVALID_ARGUMENT;
    for (int i = 0; i < MOCK_SLICES; i++)
        if (t.gpu->slices[i].used && t.gpu->slices[i].index == index) { *slice = &t.gpu->slices[i]; return SUCCESS; }
    return NOT_FOUND;
}

API int nvmlDeviceIsMigDeviceHandle(device_t device, unsigned *is_slice);
int nvmlDeviceIsMigDeviceHandle(device_t device, unsigned *is_slice) {
    ENTER(device);
    *is_slice = t.slice != NULL;
    return SUCCESS;
}

API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device_t device, device_t *parent);
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device_t device, device_t *parent) {
    ENTER(device);
    *parent = t.gpu;
    return t.slice ? SUCCESS : INVALID_ARGUMENT;
}

API int nvmlDeviceGetGpuInstanceId(device_t device, unsigned *id);
int nvmlDeviceGetGpuInstanceId(device_t device, unsigned *id) {
    ENTER(device);
    if (!t.slice) return NOT_SUPPORTED;
    *id = t.slice->gi;
    return SUCCESS;
}

API int nvmlDeviceGetComputeInstanceId(device_t device, unsigned *id);
int nvmlDeviceGetComputeInstanceId(device_t device, unsigned *id) {
    ENTER(device);
    if (!t.slice) return NOT_SUPPORTED;
    *id = t.slice->ci;
    return SUCCESS;
}

static const struct profile *profile_of(const struct gpu *g, uint32_t id) {
    for (int i = 0; i < MOCK_PROFILES; i++)
        if (g->profiles[i].used && g->profiles[i].id == id) return &g->profiles[i];
    return NULL;
}

API int nvmlDeviceGetAttributes_v2(device_t device, struct attributes *attributes);
int nvmlDeviceGetAttributes_v2(device_t device, struct attributes *attributes) {
    ENTER(device);
    const struct profile *p = t.slice ? profile_of(t.gpu, t.slice->profile_id) : NULL;
    if (!p) return t.slice ? UNKNOWN : NOT_SUPPORTED;
    *attributes = (struct attributes){.gi_slices = p->compute, .ci_slices = t.slice->ci_compute, .memory = t.slice->total >> 20};
    return SUCCESS;
}

/* A GPU instance's handle is the address of its first slice's `gi` field: of the mapping, and no device handle. */
API int nvmlDeviceGetGpuInstanceById(device_t device, unsigned id, void **instance);
int nvmlDeviceGetGpuInstanceById(device_t device, unsigned id, void **instance) {
    ENTER_CARD(device);
    if (state->no_permission) return NO_PERMISSION;
    if (!t.gpu->mig) return NOT_SUPPORTED;
    for (int i = 0; i < MOCK_SLICES; i++)
        if (t.gpu->slices[i].used && t.gpu->slices[i].gi == id) { *instance = &t.gpu->slices[i].gi; return SUCCESS; }
    return NOT_FOUND;
}

API int nvmlGpuInstanceGetInfo(void *instance, struct gi_info *info);
int nvmlGpuInstanceGetInfo(void *instance, struct gi_info *info) {
    ENTER((char *)instance - offsetof(struct slice, gi));
    if (!t.slice) return INVALID_ARGUMENT;
    *info = (struct gi_info){t.gpu, t.slice->gi, t.slice->profile_id, t.slice->start, t.slice->size};
    return SUCCESS;
}

API int nvmlDeviceGetGpuInstanceProfileInfoV(device_t device, unsigned number, struct profile_info *info);
int nvmlDeviceGetGpuInstanceProfileInfoV(device_t device, unsigned number, struct profile_info *info) {
    ENTER_CARD(device);
    if (info->version != (2u << 24 | sizeof *info)) return VERSION_MISMATCH;
    for (int i = 0; i < MOCK_PROFILES; i++) {
        const struct profile *p = &t.gpu->profiles[i];
        if (!p->used || p->number != number) continue;
        info->id = p->id;
        info->slices = p->compute;
        info->instances = p->instances;
        info->memory = p->memory;
        return text(info->name, sizeof info->name, p->name);
    }
    return NOT_SUPPORTED;
}
