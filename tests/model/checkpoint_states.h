/* What the tests that write checkpoints share: a folder of their own, and two states that it may
 * hold. Define _GNU_SOURCE before it. */
#ifndef CHECKPOINT_STATES_H
#define CHECKPOINT_STATES_H

#include "checkpoint_test.h"

static prefopt_context *context;
static char base[PATH_ROOM];
static char folder[PATH_ROOM + 16]; /* base/model */

static inline void setup(void)
{
    context = test_context(1);
    new_folder(base);
    snprintf(folder, sizeof folder, "%s/model", base);
}

static inline void teardown(void)
{
    ck_assert_int_eq(chdir("/"), 0);
    remove_all(base);
    prefopt_context_destroy(context);
}

/* Two states of the folder: other values, and with `other_config` another configuration too. */
typedef struct {
    pf_shape *shape[2];
    float *value[2];
} states;

static inline states make_states(bool other_config)
{
    states s;
    for (int k = 0; k < 2; k++) {
        prefopt_transformer_config config = small_config();
        if (other_config && k == 1) {
            config.vocab = 13;
            config.activation = PREFOPT_GELU_TANH;
        }
        s.shape[k] = make_shape(context, &config, PF_HEAD_LOGITS);
        s.value[k] = make_values(s.shape[k], k);
    }
    return s;
}

static inline void free_states(states *s)
{
    for (int k = 0; k < 2; k++) {
        pf_shape_release(s->shape[k]);
        free(s->value[k]);
    }
}

static inline int32_t save(const states *s, int k)
{
    return pf_checkpoint_write(s->shape[k], folder, s->value[k], PREFOPT_F32);
}

/* Which of the two the folder holds; anything else fails. */
static inline int which(const states *s)
{
    prefopt_transformer_config config;
    int32_t head;
    OK(pf_checkpoint_config(context, folder, &config, &head));
    for (int k = 0; k < 2; k++) {
        if (memcmp(&config, &s->shape[k]->config, sizeof config) != 0)
            continue;
        float *value = read_values(s->shape[k], folder);
        bool same = memcmp(value, s->value[k], (size_t)s->shape[k]->n * sizeof *value) == 0;
        free(value);
        if (same)
            return k;
    }
    ck_abort_msg("the folder holds neither the old nor the new");
    return -1;
}

#endif
