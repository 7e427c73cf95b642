/* The files of a checkpoint's folder: one of tensors, or shards and the index that names them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/pf_file.h"
#include "model/pf_checkpoint.h"
#include "pf_config.h"

enum { CONFIG_MOST = 1 << 20, INDEX_MOST = 8 << 20 };

static int by_name(const void *a, const void *b)
{
    const pf_entry *x = a, *y = b;
    return strcmp(x->tensor->name, y->tensor->name);
}

/* Puts the tensors of all files into one list. */
static int32_t make_entries(pf_checkpoint *c)
{
    char shown[PF_NAME_ROOM];
    int64_t n = 0;
    for (int64_t i = 0; i < c->n_files; i++)
        n += c->files[i].n_tensors;
    c->entries = pf_alloc(c->context, n, sizeof *c->entries);
    if (c->entries == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t i = 0; i < c->n_files; i++)
        for (int64_t k = 0; k < c->files[i].n_tensors; k++)
            c->entries[c->n_entries++] = (pf_entry){&c->files[i].tensors[k], &c->files[i]};
    qsort(c->entries, (size_t)n, sizeof *c->entries, by_name);
    for (int64_t i = 1; i < n; i++) {
        if (by_name(&c->entries[i - 1], &c->entries[i]) != 0)
            continue;
        pf_show_name(shown, c->entries[i].tensor->name);
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: tensor %s is in two files", pf_show_path(c->folder),
                       shown);
    }
    return PREFOPT_OK;
}

const pf_entry *pf_checkpoint_find(const pf_checkpoint *c, const char *name)
{
    pf_file_tensor tensor = {.name = name};
    pf_entry key = {.tensor = &tensor};
    return bsearch(&key, c->entries, (size_t)c->n_entries, sizeof key, by_name);
}

static int32_t open_file(pf_checkpoint *c, const char *name)
{
    PF_TRY(pf_join(c->context, c->folder, name, &c->paths[c->n_files]));
    int32_t status = pf_safetensors_open(&c->files[c->n_files], c->context, c->descriptor, name,
                                         c->paths[c->n_files]);
    c->n_files++; /* what failed is closed, and its path is freed */
    return status;
}

static int32_t make_files(pf_checkpoint *c, int64_t n)
{
    c->files = pf_calloc(c->context, n, sizeof *c->files);
    c->paths = pf_calloc(c->context, n, sizeof *c->paths);
    return c->files == NULL || c->paths == NULL ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
}

#if PF_HAVE_JSON
#include <jansson.h>

/* ---------------------------------------------------------------- shards */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Opens each file that the map names, once. names: room for one for each tensor. */
static int32_t open_shards(pf_checkpoint *c, const json_t *map, const char **names)
{
    char shown[PF_NAME_ROOM], file[PF_NAME_ROOM];
    const char *key;
    json_t *value;
    int64_t n = 0, distinct = 0;
    json_object_foreach((json_t *)map, key, value)
    {
        const char *name = json_string_value(value);
        pf_show_name(shown, key);
        if (name == NULL)
            return pf_fail(PREFOPT_ERR_FORMAT, "weight_map: %s: not a string", shown);
        pf_show_name(file, name);
        if (name[0] == 0 || strchr(name, '/') != NULL || strstr(name, "..") != NULL)
            return pf_fail(PREFOPT_ERR_FORMAT,
                           "weight_map: %s: \"%s\", expected the name of a file in the folder",
                           shown, file);
        names[n++] = name;
    }
    if (n == 0)
        return pf_fail(PREFOPT_ERR_FORMAT, "weight_map names no file");
    qsort(names, (size_t)n, sizeof *names, by_text);
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || strcmp(names[i], names[distinct - 1]) != 0)
            names[distinct++] = names[i];
    PF_TRY(make_files(c, distinct));
    for (int64_t i = 0; i < distinct; i++)
        PF_TRY(open_file(c, names[i]));
    return make_entries(c);
}

/* The index and the shards say the same. */
static int32_t check_map(const pf_checkpoint *c, const json_t *map)
{
    char shown[PF_NAME_ROOM], file[PF_NAME_ROOM];
    const char *key;
    json_t *value;
    for (int64_t i = 0; i < c->n_entries; i++) {
        const char *name = strrchr(c->entries[i].file->path, '/') + 1;
        const char *said = json_string_value(json_object_get(map, c->entries[i].tensor->name));
        if (said != NULL && strcmp(said, name) == 0)
            continue;
        pf_show_name(shown, c->entries[i].tensor->name);
        pf_show_name(file, said == NULL ? "no file" : said);
        return pf_fail(PREFOPT_ERR_FORMAT, "tensor %s is in %s, but weight_map says %s", shown,
                       name, file);
    }
    json_object_foreach((json_t *)map, key, value)
    {
        if (pf_checkpoint_find(c, key) != NULL)
            continue;
        pf_show_name(shown, key);
        pf_show_name(file, json_string_value(value));
        return pf_fail(PREFOPT_ERR_FORMAT, "tensor %s: weight_map says it is in %s, which lacks it",
                       shown, file);
    }
    return PREFOPT_OK;
}

static int32_t read_index(pf_checkpoint *c, const char *text, int64_t n)
{
    json_error_t error;
    if (pf_too_nested(text, n))
        return pf_fail(PREFOPT_ERR_FORMAT, "no index of tensors: too many brackets");
    json_t *root = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL && json_error_code(&error) == json_error_out_of_memory)
        return pf_fail(PREFOPT_ERR_MEMORY, "out of memory for JSON");
    if (root == NULL) {
        char shown[PF_NAME_ROOM];
        pf_show_name(shown, error.text);
        return pf_fail(PREFOPT_ERR_FORMAT, "line %d, column %d: %s", error.line, error.column,
                       shown);
    }
    const json_t *map = json_object_get(root, "weight_map");
    int32_t status = PREFOPT_OK;
    const char **names = NULL;
    if (!json_is_object(map))
        status = pf_fail(PREFOPT_ERR_FORMAT, "weight_map is missing or not an object");
    if (status == PREFOPT_OK) {
        names = pf_alloc(c->context, (int64_t)json_object_size(map), sizeof *names);
        status = names == NULL ? PREFOPT_ERR_MEMORY : open_shards(c, map, names);
    }
    if (status == PREFOPT_OK)
        status = check_map(c, map);
    pf_free(c->context, names);
    json_decref(root);
    return status;
}

#else

static int32_t read_index(pf_checkpoint *c, const char *text, int64_t n)
{
    (void)c, (void)text, (void)n;
    return pf_fail(PREFOPT_ERR_UNSUPPORTED, "this library was built without JSON");
}

#endif

/* ---------------------------------------------------------------- the folder */

static int32_t open_index(pf_checkpoint *c)
{
    char *path = NULL, *text = NULL;
    int64_t n = 0;
    PF_TRY(pf_join(c->context, c->folder, PF_INDEX_NAME, &path));
    int32_t status =
        pf_read_small(c->context, c->descriptor, PF_INDEX_NAME, path, INDEX_MOST, &text, &n);
    if (status == PREFOPT_OK) {
        status = read_index(c, text, n);
        if (status != PREFOPT_OK)
            status = pf_fail_in(status, "%s", pf_show_path(path));
    }
    pf_free(c->context, text);
    pf_free(c->context, path);
    return status;
}

static int32_t open_weights(pf_checkpoint *c)
{
    bool single = faccessat(c->descriptor, PF_WEIGHTS_NAME, F_OK, 0) == 0 || errno != ENOENT;
    if (!single && faccessat(c->descriptor, PF_INDEX_NAME, F_OK, 0) != 0 && errno == ENOENT)
        return pf_fail(PREFOPT_ERR_IO, "%s: has neither %s nor %s", pf_show_path(c->folder),
                       PF_WEIGHTS_NAME, PF_INDEX_NAME);
    if (!single)
        return open_index(c);
    PF_TRY(make_files(c, 1));
    PF_TRY(open_file(c, PF_WEIGHTS_NAME));
    return make_entries(c);
}

int32_t pf_checkpoint_open(pf_checkpoint *out, prefopt_context *context, const char *folder)
{
    pf_checkpoint c = {.context = context, .folder = folder};
    c.descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c.descriptor < 0)
        return pf_fail_errno(errno, "opening the folder", pf_show_path(folder));
    int32_t status = open_weights(&c);
    if (status != PREFOPT_OK) {
        pf_checkpoint_close(&c);
        return status;
    }
    *out = c;
    return PREFOPT_OK;
}

void pf_checkpoint_close(pf_checkpoint *c)
{
    for (int64_t i = 0; i < c->n_files; i++) {
        pf_safetensors_close(&c->files[i]);
        pf_free(c->context, c->paths[i]);
    }
    pf_free(c->context, c->files);
    pf_free(c->context, c->paths);
    pf_free(c->context, c->entries);
    if (c->descriptor >= 0)
        close(c->descriptor);
}

/* A save that was cut off between its two renames has left the configuration of these weights in
 * its own folder: see checkpoint_write.c. */
static const char *find_config(const pf_checkpoint *c, char room[PF_SAVE_NAME + 16])
{
    const char *save = c->files[0].save;
    if (c->n_files == 1 && save != NULL && pf_is_save_id(save)) {
        char own[PF_SAVE_NAME];
        pf_save_name(own, save);
        snprintf(room, PF_SAVE_NAME + 16, "%s/%s", own, PF_CONFIG_NAME);
        if (faccessat(c->descriptor, room, F_OK, 0) == 0)
            return room;
    }
    return PF_CONFIG_NAME;
}

int32_t pf_checkpoint_read_config(const pf_checkpoint *c, prefopt_transformer_config *config,
                                  int32_t *head)
{
    char room[PF_SAVE_NAME + 16], *path = NULL, *text = NULL;
    const char *name = find_config(c, room);
    int64_t n = 0;
    PF_TRY(pf_join(c->context, c->folder, name, &path));
    int32_t status = pf_read_small(c->context, c->descriptor, name, path, CONFIG_MOST, &text, &n);
    if (status == PREFOPT_OK)
        status = pf_config_parse(path, text, n, config, head);
    pf_free(c->context, text);
    pf_free(c->context, path);
    return status;
}
