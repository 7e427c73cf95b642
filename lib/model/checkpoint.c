/* Reading a checkpoint: what config.json says against the tensors that are there, then their
 * values. */
#include <stdatomic.h>
#include <stdio.h>

#include "model/pf_checkpoint.h"

/* ---------------------------------------------------------------- config against tensors */

/* N of "gpt_neox.layers.N.REST"; -1 for other names. */
static int64_t layer_of(const char *name, const char **rest)
{
    static const char prefix[] = "gpt_neox.layers.";
    int64_t layer = 0;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return -1;
    const char *digit = name + sizeof prefix - 1;
    for (; *digit >= '0' && *digit <= '9' && layer < 100000000; digit++)
        layer = 10 * layer + (*digit - '0');
    if (*digit != '.' || digit == name + sizeof prefix - 1)
        return -1;
    *rest = digit + 1;
    return layer;
}

/* Tensors that some versions of `transformers` write and that hold nothing learnt. */
static bool is_buffer(const pf_shape *shape, const char *name)
{
    static const char *const buffers[] = {"attention.bias", "attention.masked_bias",
                                          "attention.rotary_emb.inv_freq"};
    const char *rest;
    int64_t layer = layer_of(name, &rest);
    if (strcmp(name, "gpt_neox.rotary_emb.inv_freq") == 0)
        return true;
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        if (layer >= 0 && layer < shape->config.n_layers && strcmp(rest, buffers[i]) == 0)
            return true;
    return false;
}

/* " (config.json: num_hidden_layers is 4, the tensors are of 3 layers)", or "" where they agree. */
static void show_layers(char out[128], const pf_checkpoint *c, const pf_shape *shape)
{
    int64_t n = 0;
    const char *rest;
    for (int64_t i = 0; i < c->n_entries; i++) {
        int64_t layer = layer_of(c->entries[i].tensor->name, &rest);
        n = layer >= n ? layer + 1 : n;
    }
    out[0] = 0;
    if (n != shape->config.n_layers)
        snprintf(out, 128, " (%s: num_hidden_layers is %lld, but the tensors are of %lld layer%s)",
                 PF_CONFIG_NAME, (long long)shape->config.n_layers, (long long)n,
                 n == 1 ? "" : "s");
}

/* The file where there is one, else the folder. */
static const char *place_of(const pf_checkpoint *c)
{
    return pf_show_path(c->n_files == 1 ? c->paths[0] : c->folder);
}

static int32_t match_tensor(const pf_checkpoint *c, const pf_shape *shape, const pf_tensor *wanted,
                            const pf_entry **out)
{
    char found[PF_SHAPE_ROOM], expected[PF_SHAPE_ROOM], layers[128], shown[PF_NAME_ROOM];
    const int64_t dims[2] = {wanted->rows, wanted->columns};
    const pf_entry *entry = pf_checkpoint_find(c, wanted->name);
    pf_show_shape(expected, wanted->n_dims, dims);
    if (entry == NULL) {
        show_layers(layers, c, shape);
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: tensor %s is missing, expected %s%s", place_of(c),
                       wanted->name, expected, layers);
    }
    const pf_file_tensor *tensor = entry->tensor;
    if (tensor->n_dims != wanted->n_dims || tensor->dims[0] != wanted->rows ||
        (wanted->n_dims == 2 && tensor->dims[1] != wanted->columns)) {
        pf_show_shape(found, tensor->n_dims, tensor->dims);
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "%s: tensor %s is %s, but %s says %s: vocab_size is %lld, hidden_size "
                       "%lld, intermediate_size %lld",
                       pf_show_path(entry->file->path), wanted->name, found, PF_CONFIG_NAME,
                       expected, (long long)shape->config.vocab, (long long)shape->config.width,
                       (long long)shape->config.ff_width);
    }
    if (tensor->dtype < 0) {
        pf_show_name(shown, tensor->dtype_name);
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: tensor %s is in %s, expected F32, F16 or BF16",
                       pf_show_path(entry->file->path), wanted->name, shown);
    }
    *out = entry;
    return PREFOPT_OK;
}

/* Tied: the output matrix may be written out, when it is the embedding. */
static int32_t check_tied(const pf_entry *entry, const pf_entry *embedding)
{
    const pf_file_tensor *a = entry->tensor, *b = embedding->tensor;
    if (a->dtype == b->dtype && a->n_dims == 2 && a->dims[0] == b->dims[0] &&
        a->dims[1] == b->dims[1] && memcmp(a->bytes, b->bytes, (size_t)a->n_bytes) == 0)
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_FORMAT,
                   "%s: tensor %s differs from gpt_neox.embed_in.weight, but %s says "
                   "tie_word_embeddings",
                   pf_show_path(entry->file->path), a->name, PF_CONFIG_NAME);
}

static int32_t check_extra(const pf_checkpoint *c, const pf_shape *shape, const pf_entry *entry,
                           const pf_entry *embedding)
{
    char shown[PF_NAME_ROOM], layers[128];
    const char *name = entry->tensor->name;
    if (is_buffer(shape, name))
        return PREFOPT_OK;
    if (shape->config.tied && shape->head == PF_HEAD_LOGITS &&
        strcmp(name, "embed_out.weight") == 0)
        return check_tied(entry, embedding);
    pf_show_name(shown, name);
    show_layers(layers, c, shape);
    return pf_fail(PREFOPT_ERR_FORMAT, "%s: tensor %s is none of the model that %s describes%s",
                   pf_show_path(entry->file->path), shown, PF_CONFIG_NAME, layers);
}

/* entries[i]: where tensor i of the shape is. Every other one must be known to be harmless. */
static int32_t match(const pf_checkpoint *c, const pf_shape *shape, const pf_entry **entries)
{
    for (int64_t i = 0; i < shape->n_tensors; i++)
        PF_TRY(match_tensor(c, shape, &shape->tensors[i], &entries[i]));
    bool *used = pf_calloc(c->context, c->n_entries, sizeof *used);
    if (used == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t i = 0; i < shape->n_tensors; i++)
        used[entries[i] - c->entries] = true;
    int32_t status = PREFOPT_OK;
    for (int64_t i = 0; i < c->n_entries && status == PREFOPT_OK; i++)
        if (!used[i])
            status = check_extra(c, shape, &c->entries[i], entries[0]);
    pf_free(c->context, used);
    return status;
}

/* The sizes of a config are believed once tensors of those sizes were seen: nobody need allocate on
 * the word of config.json alone. */
static int32_t check_config(const pf_checkpoint *c, const prefopt_transformer_config *config,
                            int32_t head)
{
    pf_shape *shape;
    PF_TRY(pf_shape_create(&shape, c->context, config, head));
    const pf_entry **entries = pf_alloc(c->context, shape->n_tensors, sizeof *entries);
    int32_t status = entries == NULL ? PREFOPT_ERR_MEMORY : match(c, shape, entries);
    pf_free(c->context, entries);
    pf_shape_release(shape);
    return status;
}

int32_t pf_checkpoint_config(prefopt_context *context, const char *folder,
                             prefopt_transformer_config *config, int32_t *head)
{
    pf_checkpoint c;
    prefopt_transformer_config own;
    int32_t own_head = PF_HEAD_LOGITS;
    PF_TRY(pf_checkpoint_open(&c, context, folder));
    int32_t status = pf_checkpoint_read_config(&c, &own, &own_head);
    if (status == PREFOPT_OK)
        status = check_config(&c, &own, own_head);
    pf_checkpoint_close(&c);
    if (status != PREFOPT_OK)
        return status;
    *config = own;
    *head = own_head;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- values */

enum { TASK = 1 << 16 }; /* elements */

typedef struct {
    const pf_shape *shape;
    const pf_entry **entries;
    int64_t *first_task; /* [n_tensors + 1]: task t is of the last tensor with first_task <= t */
    float *value;
    _Atomic int64_t bad; /* first element that is not finite; shape->n: none so far */
} read_work;

static int64_t tensor_of(const read_work *w, int64_t task)
{
    int64_t low = 0, high = w->shape->n_tensors;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (w->first_task[middle] <= task)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void read_task(void *payload, int64_t task)
{
    read_work *w = payload;
    int64_t k = tensor_of(w, task), start = (task - w->first_task[k]) * TASK;
    const pf_file_tensor *tensor = w->entries[k]->tensor;
    int64_t n = tensor->n - start < TASK ? tensor->n - start : TASK;
    int64_t at = w->shape->tensors[k].offset + start;
    pf_safetensors_values(tensor, start, n, w->value + at);
    int64_t bad = pf_first_not_finite(n, w->value + at);
    if (bad == n)
        return;
    int64_t least = atomic_load(&w->bad);
    while (at + bad < least && !atomic_compare_exchange_weak(&w->bad, &least, at + bad))
        ;
}

static int32_t read_values(const pf_shape *shape, const pf_entry **entries, float *value)
{
    read_work w = {.shape = shape, .entries = entries, .value = value};
    int64_t n = shape->n_tensors;
    w.first_task = pf_alloc(shape->context, n + 1, sizeof *w.first_task);
    if (w.first_task == NULL)
        return PREFOPT_ERR_MEMORY;
    atomic_init(&w.bad, shape->n);
    w.first_task[0] = 0;
    for (int64_t k = 0; k < n; k++)
        w.first_task[k + 1] = w.first_task[k] + (entries[k]->tensor->n + TASK - 1) / TASK;
    pf_parallel_for(shape->context, w.first_task[n], read_task, &w);
    pf_free(shape->context, w.first_task);
    int64_t bad = atomic_load(&w.bad), k = 0;
    if (bad == shape->n)
        return PREFOPT_OK;
    while (k + 1 < n && shape->tensors[k + 1].offset <= bad)
        k++;
    return pf_fail(PREFOPT_ERR_FORMAT, "%s: tensor %s: [%lld] is %g, expected a finite number",
                   pf_show_path(entries[k]->file->path), shape->tensors[k].name,
                   (long long)(bad - shape->tensors[k].offset), (double)value[bad]);
}

/* A folder can be replaced between the reading of its configuration and that of its tensors. What
 * tensors do not show must still be what the shape was made from. */
static int32_t check_same(const pf_checkpoint *c, const pf_shape *shape)
{
    prefopt_transformer_config now;
    const prefopt_transformer_config *then = &shape->config;
    int32_t head;
    PF_TRY(pf_checkpoint_read_config(c, &now, &head));
    if (head == shape->head && now.activation == then->activation &&
        now.parallel_residual == then->parallel_residual && now.tied == then->tied &&
        now.n_heads == then->n_heads && now.rotary_fraction == then->rotary_fraction &&
        now.rotary_base == then->rotary_base && now.norm_epsilon == then->norm_epsilon)
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_FORMAT,
                   "%s/%s: not the configuration of the model that its tensors are read into",
                   pf_show_path(c->folder), PF_CONFIG_NAME);
}

int32_t pf_checkpoint_read(const pf_shape *shape, const char *folder, float *value)
{
    pf_checkpoint c;
    PF_TRY(pf_checkpoint_open(&c, shape->context, folder));
    const pf_entry **entries = NULL;
    int32_t status = check_same(&c, shape);
    if (status == PREFOPT_OK) {
        entries = pf_alloc(shape->context, shape->n_tensors, sizeof *entries);
        status = entries == NULL ? PREFOPT_ERR_MEMORY : match(&c, shape, entries);
    }
    if (status == PREFOPT_OK)
        status = read_values(shape, entries, value);
    pf_free(shape->context, entries);
    pf_checkpoint_close(&c);
    return status;
}
