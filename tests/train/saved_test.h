/* What the tests of saved trainers share: small models and data, checkpoints compared byte by byte.
 * Define _GNU_SOURCE before it. */
#ifndef SAVED_TEST_H
#define SAVED_TEST_H

#include "model/checkpoint_test.h"

/* FOLDER/NAME, good for the next 30 calls. Not inlined, as path_of. */
__attribute__((noinline, unused)) static char *at(const char *folder, const char *name)
{
    static char room[32][PATH_ROOM + 64];
    static int next;
    char *path = room[next++ % 32];
    ck_assert_int_lt(snprintf(path, sizeof room[0], "%s/%s", folder, name), (int)sizeof room[0]);
    return path;
}

static inline char *step_folder(const char *directory, int64_t step)
{
    char name[32];
    snprintf(name, sizeof name, "step-%09lld", (long long)step);
    return at(directory, name);
}

/* The same file in both folders, or in neither. */
static inline void same_file(const char *a, const char *b, const char *name)
{
    size_t n = 0, m = 0;
    char *x = get_file(a, name, &n), *y = get_file(b, name, &m);
    ck_assert_msg((x == NULL) == (y == NULL), "%s is in one of %s and %s alone", name, a, b);
    ck_assert_msg(x == NULL || (n == m && memcmp(x, y, n) == 0), "%s differs: %s, %s", name, a, b);
    free(x);
    free(y);
}

static inline void same_checkpoint(const char *a, const char *b)
{
    static const char *const names[] = {"config.json", "model.safetensors", "optimiser.safetensors",
                                        "trainer.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        same_file(a, b, names[i]);
    ck_assert_int_eq(count_names(a), count_names(b));
}

static inline prefopt_policy *small_policy(prefopt_context *context, uint64_t seed)
{
    prefopt_policy *policy = NULL;
    prefopt_transformer_config config = small_config();
    config.init_scale = 0.1;
    OK(prefopt_policy_create_transformer(&policy, context, &config, seed));
    return policy;
}

static inline prefopt_dataset *small_pairs(prefopt_context *context)
{
    prefopt_dataset *data = NULL;
    OK(prefopt_dataset_create(&data, context));
    for (int32_t i = 0; i < 6; i++) {
        int32_t prompt[] = {i, 10}, chosen[] = {(i + 1) % 9, 3}, rejected[] = {(i + 2) % 9, 4, 5};
        OK(prefopt_dataset_append_pair(data, prompt, 2, chosen, 2, rejected, 3, 1 + 0.1 * i, 1, 0));
    }
    return data;
}

static inline bool is_there(const char *directory, int64_t step)
{
    return access(step_folder(directory, step), F_OK) == 0;
}

#endif
