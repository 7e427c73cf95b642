/* What the tests of checkpoints share: a folder of their own, small files, a shape and its
 * values. Define _GNU_SOURCE before it. */
#ifndef CHECKPOINT_TEST_H
#define CHECKPOINT_TEST_H

#include <dirent.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/pf_checkpoint.h"
#include "pf_test.h"

enum { PATH_ROOM = 512 };

/* Not inlined: gcc would see one of the rooms in another. */
__attribute__((noinline, unused)) static char *path_of(const char *folder, const char *name)
{
    static char room[4][PATH_ROOM];
    static int next;
    char *path = room[next++ % 4];
    ck_assert_int_lt(snprintf(path, PATH_ROOM, "%s/%s", folder, name), PATH_ROOM);
    return path;
}

static inline void new_folder(char out[PATH_ROOM])
{
    /* In memory where there is such a place: flushing to a disk takes time. */
    const char *base = getenv("TMPDIR");
    if (base == NULL)
        base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(out, PATH_ROOM, "%s/prefopt-test-XXXXXX", base);
    ck_assert_ptr_nonnull(mkdtemp(out));
}

static inline int remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info, (void)kind, (void)walk;
    return remove(path);
}

static inline void remove_all(const char *folder)
{
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void put_file(const char *folder, const char *name, const void *bytes, size_t n)
{
    FILE *file = fopen(path_of(folder, name), "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, n, file), n);
    ck_assert_int_eq(fclose(file), 0);
}

static inline void put_text(const char *folder, const char *name, const char *text)
{
    put_file(folder, name, text, strlen(text));
}

/* The whole file, with a zero after it; NULL when it is not there. */
static inline char *get_file(const char *folder, const char *name, size_t *n)
{
    FILE *file = fopen(path_of(folder, name), "rb");
    if (file == NULL)
        return NULL;
    ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    rewind(file);
    char *bytes = calloc((size_t)size + 1, 1);
    ck_assert_uint_eq(fread(bytes, 1, (size_t)size, file), (size_t)size);
    fclose(file);
    if (n != NULL)
        *n = (size_t)size;
    return bytes;
}

/* A safetensors file from a header's text and so many bytes of data; to be freed. */
static inline char *make_safetensors(const char *header, const void *data, size_t n_data, size_t *n)
{
    size_t length = strlen(header);
    char *bytes = calloc(8 + length + n_data + 1, 1);
    for (int i = 0; i < 8; i++)
        bytes[i] = (char)(length >> 8 * i & 0xff);
    memcpy(bytes + 8, header, length);
    if (data != NULL)
        memcpy(bytes + 8 + length, data, n_data);
    *n = 8 + length + n_data;
    return bytes;
}

static inline prefopt_transformer_config small_config(void)
{
    prefopt_transformer_config config;
    OK(prefopt_transformer_config_init(&config, sizeof config));
    config.vocab = 11;
    config.n_layers = 2;
    config.width = 8;
    config.n_heads = 2;
    config.ff_width = 12;
    config.max_positions = 32;
    config.rotary_fraction = 0.5;
    return config;
}

static inline pf_shape *make_shape(prefopt_context *context,
                                   const prefopt_transformer_config *config, int32_t head)
{
    pf_shape *shape = NULL;
    OK(pf_shape_create(&shape, context, config, head));
    return shape;
}

/* Values that F16 and BF16 hold exactly: seed + i of few bits. */
static inline float *make_values(const pf_shape *shape, int seed)
{
    float *value = calloc((size_t)shape->n + 1, sizeof *value);
    for (int64_t i = 0; i < shape->n; i++)
        value[i] = (float)((i * 7 + seed * 13) % 127 - 63) / 64;
    return value;
}

static inline float *read_values(const pf_shape *shape, const char *folder)
{
    float *value = calloc((size_t)shape->n + 1, sizeof *value);
    OK(pf_checkpoint_read(shape, folder, value));
    return value;
}

/* How many names the folder has. */
static inline int count_names(const char *folder)
{
    int n = 0;
    DIR *list = opendir(folder);
    ck_assert_ptr_nonnull(list);
    while (readdir(list) != NULL)
        n++;
    closedir(list);
    return n - 2;
}

#endif
