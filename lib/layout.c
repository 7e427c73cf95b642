/* The layout of every public struct by name, for bindings: the only file that sees all public
 * headers and no internal one but base's. */
#include <stddef.h>
#include <string.h>

#include "prefopt/prefopt.h"

typedef struct {
    const char *name; /* of the field; of the struct where the offset is -1 */
    int64_t offset;
    int64_t size;
} entry;

#define STRUCT(type) {#type, -1, (int64_t)sizeof(type)},
#define FIELD(type, field) {#field, (int64_t)offsetof(type, field), 0},

/* clang-format off */
/* A struct's row is followed by the rows of its fields. */
static const entry entries[] = {
    /* ---- base */
    STRUCT(prefopt_context_options)
    FIELD(prefopt_context_options, struct_size)
    FIELD(prefopt_context_options, threads)
    FIELD(prefopt_context_options, byte_budget)
    FIELD(prefopt_context_options, allocate)
    FIELD(prefopt_context_options, release)
    FIELD(prefopt_context_options, allocator_payload)
    FIELD(prefopt_context_options, log)
    FIELD(prefopt_context_options, log_payload)

    /* ---- loss */

    /* end of loss */

    /* ---- data */

    /* end of data */

    /* ---- model */

    /* end of model */

    /* ---- online */

    /* end of online */

    /* ---- train */

    /* end of train */

    /* ---- report */

    /* end of report */
};
/* clang-format on */
enum { N_ENTRIES = sizeof entries / sizeof entries[0] };

static int64_t find_struct(const char *name)
{
    for (int64_t i = 0; i < N_ENTRIES; i++)
        if (entries[i].offset < 0 && strcmp(entries[i].name, name) == 0)
            return i;
    return -1;
}

int64_t prefopt_sizeof(const char *struct_name)
{
    int64_t i = struct_name == NULL ? -1 : find_struct(struct_name);
    return i < 0 ? -1 : entries[i].size;
}

int64_t prefopt_offsetof(const char *struct_name, const char *field)
{
    int64_t i = struct_name == NULL || field == NULL ? -1 : find_struct(struct_name);
    if (i < 0)
        return -1;
    for (i++; i < N_ENTRIES && entries[i].offset >= 0; i++)
        if (strcmp(entries[i].name, field) == 0)
            return entries[i].offset;
    return -1;
}
