/* Structs that start with struct_size: reading the caller's, filling in defaults. */
#include "base/pf_base.h"

static uint32_t struct_size_of(const void *callers)
{
    uint32_t size;
    memcpy(&size, callers, sizeof size);
    return size;
}

static int32_t too_small(const char *name, uint32_t size, uint32_t v1_size)
{
    return pf_fail(PREFOPT_ERR_VERSION, "%s: struct_size is %u, expected at least %u (sizeof %s)",
                   name, size, v1_size, name);
}

int32_t pf_struct_read(void *own, uint32_t own_size, uint32_t v1_size, const void *callers,
                       const char *name)
{
    uint32_t size = struct_size_of(callers);
    if (size < v1_size)
        return too_small(name, size, v1_size);
    for (uint32_t i = own_size; i < size; i++)
        if (((const unsigned char *)callers)[i] != 0)
            return pf_fail(PREFOPT_ERR_VERSION,
                           "%s: struct_size is %u and byte %u is not zero, but this library (%s) "
                           "knows %u bytes",
                           name, size, i, prefopt_version_string(), own_size);
    memcpy(own, callers, size < own_size ? size : own_size);
    memcpy(own, &own_size, sizeof own_size);
    return PREFOPT_OK;
}

int32_t pf_struct_init(void *callers, uint32_t struct_size, const void *defaults, uint32_t own_size,
                       uint32_t v1_size, const char *name)
{
    if (callers == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: the pointer to initialise is NULL", name);
    if (struct_size < v1_size)
        return too_small(name, struct_size, v1_size);
    memset(callers, 0, struct_size);
    memcpy(callers, defaults, struct_size < own_size ? struct_size : own_size);
    memcpy(callers, &struct_size, sizeof struct_size);
    return PREFOPT_OK;
}

int32_t pf_struct_check_out(const void *callers, uint32_t v1_size, const char *name)
{
    uint32_t size = struct_size_of(callers);
    return size < v1_size ? too_small(name, size, v1_size) : PREFOPT_OK;
}

void pf_struct_write(void *callers, const void *own, uint32_t own_size)
{
    uint32_t size = struct_size_of(callers);
    memcpy(callers, own, size < own_size ? size : own_size);
    memcpy(callers, &size, sizeof size);
}
