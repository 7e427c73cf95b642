/* What a run is: its objective, options, data and model, field by field. A checkpoint says it, and
 * who goes on must say the same. */
#include <math.h>
#include <stdio.h>

#include "pf_config.h"
#include "train/pf_evaluation.h"
#include "train/pf_saved.h"

#if PF_HAVE_JSON
#include <jansson.h>

static void set(pf_describe *to, const char *name, json_t *value)
{
    char whole[PF_SAVED_NAME];
    snprintf(whole, sizeof whole, "%s.%s", to->prefix, name);
    if (json_object_set_new(to->fields, whole, value) != 0)
        to->failed = true;
}

void pf_describe_i64(pf_describe *to, const char *name, int64_t value)
{
    set(to, name, json_integer(value));
}

void pf_describe_text(pf_describe *to, const char *name, const char *value)
{
    set(to, name, json_string(value));
}

/* JSON's readers do not agree on integers above 2^63. */
void pf_describe_u64(pf_describe *to, const char *name, uint64_t value)
{
    char text[32];
    if (value <= INT64_MAX) {
        pf_describe_i64(to, name, (int64_t)value);
        return;
    }
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    pf_describe_text(to, name, text);
}

void pf_describe_f64(pf_describe *to, const char *name, double value)
{
    if (isfinite(value))
        set(to, name, json_real(value));
    else
        pf_describe_text(to, name, isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
}

static void set_hash(pf_describe *to, const char *name, uint64_t hash)
{
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    pf_describe_text(to, name, text);
}

void pf_describe_bytes(pf_describe *to, const char *name, const void *bytes, int64_t n)
{
    set_hash(to, name, pf_content_hash(NULL, 0, bytes, n));
}

void pf_describe_about(pf_describe *to, const char *name, const double *values, int64_t n)
{
    int64_t n_finite = 0;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(values[i])) {
            sum += values[i];
            n_finite++;
        }
    set(to, name,
        json_pack("{s:f,s:I}", "mean", n_finite > 0 ? sum / (double)n_finite : 0, "finite",
                  (json_int_t)n_finite));
}

void pf_describe_fields(pf_describe *to, const pf_field *fields, size_t n_fields,
                        const void *values)
{
    for (size_t i = 0; i < n_fields; i++) {
        const void *at = (const char *)values + fields[i].offset;
        switch (fields[i].type) {
        case PF_FIELD_I32:
            pf_describe_i64(to, fields[i].name, *(const int32_t *)at);
            break;
        case PF_FIELD_U32:
            pf_describe_i64(to, fields[i].name, *(const uint32_t *)at);
            break;
        case PF_FIELD_I64:
            pf_describe_i64(to, fields[i].name, *(const int64_t *)at);
            break;
        case PF_FIELD_U64:
            pf_describe_u64(to, fields[i].name, *(const uint64_t *)at);
            break;
        default:
            pf_describe_f64(to, fields[i].name, *(const double *)at);
        }
    }
}

void pf_describe_clear(pf_describe *describe)
{
    json_decref(describe->fields);
    describe->fields = NULL;
}

static int32_t begin(pf_describe *to)
{
    to->fields = json_object();
    to->failed = to->fields == NULL;
    return to->failed ? pf_fail(PREFOPT_ERR_MEMORY, "out of memory for JSON") : PREFOPT_OK;
}

#else

void pf_describe_i64(pf_describe *to, const char *name, int64_t value)
{
    (void)to, (void)name, (void)value;
}
void pf_describe_u64(pf_describe *to, const char *name, uint64_t value)
{
    (void)to, (void)name, (void)value;
}
void pf_describe_f64(pf_describe *to, const char *name, double value)
{
    (void)to, (void)name, (void)value;
}
void pf_describe_text(pf_describe *to, const char *name, const char *value)
{
    (void)to, (void)name, (void)value;
}
void pf_describe_bytes(pf_describe *to, const char *name, const void *bytes, int64_t n)
{
    (void)to, (void)name, (void)bytes, (void)n;
}
void pf_describe_about(pf_describe *to, const char *name, const double *values, int64_t n)
{
    (void)to, (void)name, (void)values, (void)n;
}
void pf_describe_fields(pf_describe *to, const pf_field *fields, size_t n_fields,
                        const void *values)
{
    (void)to, (void)fields, (void)n_fields, (void)values;
}
void pf_describe_clear(pf_describe *describe) { (void)describe; }

static int32_t begin(pf_describe *to)
{
    (void)to;
    return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                   "saving and restoring trainers needs JSON, and this library was built without");
}

static void set_hash(pf_describe *to, const char *name, uint64_t hash)
{
    (void)to, (void)name, (void)hash;
}

#endif

/* ---------------------------------------------------------------- options
 *
 * Each list has all fields but pointers and what does not touch the run's numbers. Who appends a
 * field to a struct is stopped here, to decide which of the two it is. */

#define COUNT(fields) (sizeof(fields) / sizeof(fields)[0])
#define SIZE_IS(type, bytes)                                                                       \
    _Static_assert(sizeof(type) == (bytes), #type " has changed: does a saved run depend on it?")

void pf_describe_dpo(pf_describe *to, const prefopt_dpo_options *options)
{
    static const pf_field fields[] = {PF_FIELD(prefopt_dpo_options, variant),
                                      PF_FIELD(prefopt_dpo_options, beta),
                                      PF_FIELD(prefopt_dpo_options, label_smoothing),
                                      PF_FIELD(prefopt_dpo_options, gamma),
                                      PF_FIELD(prefopt_dpo_options, delta),
                                      PF_FIELD(prefopt_dpo_options, tau),
                                      PF_FIELD(prefopt_dpo_options, lambda),
                                      PF_FIELD(prefopt_dpo_options, divergence),
                                      PF_FIELD(prefopt_dpo_options, alpha)};
    SIZE_IS(prefopt_dpo_options, 72);
    pf_describe_fields(to, fields, COUNT(fields), options);
}

void pf_describe_pg(pf_describe *to, const prefopt_pg_options *options)
{
    static const pf_field fields[] = {
        PF_FIELD(prefopt_pg_options, baseline),     PF_FIELD(prefopt_pg_options, kl_placement),
        PF_FIELD(prefopt_pg_options, kl_estimator), PF_FIELD(prefopt_pg_options, beta),
        PF_FIELD(prefopt_pg_options, clip_low),     PF_FIELD(prefopt_pg_options, clip_high)};
    SIZE_IS(prefopt_pg_options, 40);
    pf_describe_fields(to, fields, COUNT(fields), options);
}

/* Without the callback, whose answer can only stop. */
void pf_describe_sampler(pf_describe *to, const prefopt_sampler_options *options)
{
    static const pf_field fields[] = {PF_FIELD(prefopt_sampler_options, without_replacement),
                                      PF_FIELD(prefopt_sampler_options, n),
                                      PF_FIELD(prefopt_sampler_options, temperature),
                                      PF_FIELD(prefopt_sampler_options, top_k),
                                      PF_FIELD(prefopt_sampler_options, top_p),
                                      PF_FIELD(prefopt_sampler_options, seed),
                                      PF_FIELD(prefopt_sampler_options, round),
                                      PF_FIELD(prefopt_sampler_options, min_p),
                                      PF_FIELD(prefopt_sampler_options, max_tokens),
                                      PF_FIELD(prefopt_sampler_options, n_stop)};
    SIZE_IS(prefopt_sampler_options, 104);
    const char *prefix = to->prefix;
    to->prefix = "sampler";
    pf_describe_fields(to, fields, COUNT(fields), options);
    pf_describe_bytes(to, "stop", options->stop, options->n_stop * (int64_t)sizeof *options->stop);
    to->prefix = prefix;
}

void pf_describe_ranker(pf_describe *to, const prefopt_ranker_options *options)
{
    static const pf_field fields[] = {PF_FIELD(prefopt_ranker_options, rule),
                                      PF_FIELD(prefopt_ranker_options, tie_rule),
                                      PF_FIELD(prefopt_ranker_options, soft_labels),
                                      PF_FIELD(prefopt_ranker_options, soft_scale),
                                      PF_FIELD(prefopt_ranker_options, margin_floor),
                                      PF_FIELD(prefopt_ranker_options, seed)};
    SIZE_IS(prefopt_ranker_options, 40);
    const char *prefix = to->prefix;
    to->prefix = "ranker";
    pf_describe_fields(to, fields, COUNT(fields), options);
    to->prefix = prefix;
}

/* Without the fit's fields, the progress's and the collective: ranks change the rounding alone. */
static void describe_train(pf_describe *to, const prefopt_train_options *options)
{
    static const pf_field fields[] = {PF_FIELD(prefopt_train_options, optimiser),
                                      PF_FIELD(prefopt_train_options, schedule),
                                      PF_FIELD(prefopt_train_options, decay_vectors),
                                      PF_FIELD(prefopt_train_options, learning_rate),
                                      PF_FIELD(prefopt_train_options, final_fraction),
                                      PF_FIELD(prefopt_train_options, warmup_steps),
                                      PF_FIELD(prefopt_train_options, schedule_steps),
                                      PF_FIELD(prefopt_train_options, beta1),
                                      PF_FIELD(prefopt_train_options, beta2),
                                      PF_FIELD(prefopt_train_options, epsilon),
                                      PF_FIELD(prefopt_train_options, momentum),
                                      PF_FIELD(prefopt_train_options, weight_decay),
                                      PF_FIELD(prefopt_train_options, clip_norm),
                                      PF_FIELD(prefopt_train_options, batch),
                                      PF_FIELD(prefopt_train_options, seed),
                                      PF_FIELD(prefopt_train_options, ridge),
                                      PF_FIELD(prefopt_train_options, score_ridge)};
    SIZE_IS(prefopt_train_options, 184); /* not micro_batch nor collective: rounding alone */
    to->prefix = "train";
    pf_describe_fields(to, fields, COUNT(fields), options);
}

static void describe_config(pf_describe *to, const prefopt_transformer_config *config)
{
    static const pf_field fields[] = {PF_FIELD(prefopt_transformer_config, architecture),
                                      PF_FIELD(prefopt_transformer_config, activation),
                                      PF_FIELD(prefopt_transformer_config, parallel_residual),
                                      PF_FIELD(prefopt_transformer_config, tied),
                                      PF_FIELD(prefopt_transformer_config, eos),
                                      PF_FIELD(prefopt_transformer_config, vocab),
                                      PF_FIELD(prefopt_transformer_config, n_layers),
                                      PF_FIELD(prefopt_transformer_config, width),
                                      PF_FIELD(prefopt_transformer_config, n_heads),
                                      PF_FIELD(prefopt_transformer_config, ff_width),
                                      PF_FIELD(prefopt_transformer_config, max_positions),
                                      PF_FIELD(prefopt_transformer_config, rotary_fraction),
                                      PF_FIELD(prefopt_transformer_config, rotary_base),
                                      PF_FIELD(prefopt_transformer_config, norm_epsilon)};
    SIZE_IS(prefopt_transformer_config, 104);
    pf_describe_fields(to, fields, COUNT(fields), config);
}

/* A mask is the caller's to set again: it is in no file, but the run depends on it. */
static void describe_transitions(pf_describe *to, const pf_transitions *transitions)
{
    if (transitions == NULL)
        pf_describe_text(to, "transitions", "none");
    else
        pf_describe_bytes(to, "transitions", transitions->allowed,
                          transitions->vocab * transitions->vocab);
}

int32_t pf_trainer_describe(const prefopt_trainer *trainer, pf_describe *to)
{
    pf_values values;
    *to = (pf_describe){0};
    PF_TRY(begin(to));
    PF_TRY(pf_trained_values(&trainer->model, &values));
    to->prefix = "model";
    pf_describe_text(to, "kind",
                     values.shape == NULL                   ? "parameters"
                     : values.shape->head == PF_HEAD_LOGITS ? "language model"
                                                            : "reward model");
    if (values.shape != NULL) {
        describe_config(to, &values.shape->config);
        describe_transitions(to, values.transitions);
    }
    pf_describe_text(to, "dtype", pf_dtype_name(values.dtype));
    pf_describe_i64(to, "n", values.n);
    describe_train(to, &trainer->options);
    to->prefix = "data";
    if (!trainer->objective->sampled) /* they tell their prompts */
        pf_describe_i64(to, "rows", trainer->batches.n);
    set_hash(to, "hash", trainer->data_hash);
    to->prefix = trainer->objective->name;
    if (trainer->objective->describe != NULL)
        trainer->objective->describe(trainer, to);
    pf_evaluation_describe(trainer, to);
    return to->failed ? pf_fail(PREFOPT_ERR_MEMORY, "out of memory for JSON") : PREFOPT_OK;
}

/* ---------------------------------------------------------------- data */

uint64_t pf_rows_hash(const pf_rows *rows)
{
    prefopt_context *context = rows->context;
    const prefopt_sequences *view = pf_sequence_map_view(rows->map);
    int64_t n = rows->n, n_tokens = view->offsets[view->n] - view->offsets[0];
    uint64_t hash = PF_HASH_START;
    const struct {
        const void *bytes;
        int64_t n_bytes;
    } parts[] = {
        {view->offsets, (view->n + 1) * (int64_t)sizeof *view->offsets},
        {view->prompt_len, view->n * (int64_t)sizeof *view->prompt_len},
        {n_tokens > 0 ? view->tokens + view->offsets[0] : NULL,
         n_tokens * (int64_t)sizeof *view->tokens},
        {rows->first, (n + 1) * (int64_t)sizeof *rows->first},
        {rows->sequence, rows->n_slots * (int64_t)sizeof *rows->sequence},
        {rows->kind, n * (int64_t)sizeof *rows->kind},
        {rows->weight, n * (int64_t)sizeof *rows->weight},
        {rows->label, n * (int64_t)sizeof *rows->label},
        {rows->margin, n * (int64_t)sizeof *rows->margin},
    };
    for (size_t i = 0; i < COUNT(parts); i++)
        hash = pf_content_hash(context, hash, parts[i].bytes, parts[i].n_bytes);
    return hash;
}

int32_t pf_prompts_hash(prefopt_context *context, const prefopt_dataset *prompts, uint64_t *hash)
{
    prefopt_columns columns = {.struct_size = sizeof columns};
    prefopt_sequences in = {.struct_size = sizeof in};
    PF_TRY(prefopt_dataset_columns(prompts, &columns));
    PF_TRY(prefopt_dataset_sequences(prompts, &in));
    *hash = PF_HASH_START;
    for (int64_t row = 0; row < columns.n_rows; row++) {
        int64_t i = columns.first[row];
        *hash = pf_content_hash(context, *hash, pf_sequence_tokens(&in, i),
                                in.prompt_len[i] * (int64_t)sizeof *in.tokens);
    }
    return PREFOPT_OK;
}

/* Numbers with one NaN, whatever bits theirs have. */
static uint64_t hash_column(uint64_t hash, const double *values, int64_t n)
{
    uint64_t bits;
    for (int64_t i = 0; i < n; i++) {
        memcpy(&bits, &values[i], sizeof bits);
        hash = pf_stream(hash, isnan(values[i]) ? UINT64_MAX : bits);
    }
    return hash;
}

int32_t pf_dataset_hash(prefopt_context *context, const prefopt_dataset *data, uint64_t *hash)
{
    prefopt_columns c = {.struct_size = sizeof c};
    prefopt_sequences in = {.struct_size = sizeof in};
    PF_TRY(prefopt_dataset_columns(data, &c));
    PF_TRY(prefopt_dataset_sequences(data, &in));
    uint64_t h = pf_stream(PF_HASH_START, (uint64_t)c.n_rows);
    for (int64_t row = 0; row < c.n_rows; row++)
        h = pf_stream(pf_stream(h, (uint64_t)c.kind[row]), (uint64_t)c.first[row + 1]);
    for (int64_t i = 0; i < in.n; i++) {
        h = pf_stream(h, (uint64_t)in.prompt_len[i]);
        h = pf_content_hash(context, h, pf_sequence_tokens(&in, i),
                            pf_sequence_len(&in, i) * (int64_t)sizeof *in.tokens);
    }
    h = hash_column(h, c.weight, c.n_rows);
    h = hash_column(h, c.label, c.n_rows);
    h = hash_column(h, c.margin, c.n_rows);
    h = hash_column(h, c.logp, in.n);
    h = hash_column(h, c.sampler_logp, in.n);
    h = hash_column(h, c.score, in.n);
    h = hash_column(h, c.ref_logp, in.n);
    *hash = pf_content_hash(context, h, c.ref_key,
                            c.n_rows > 0 ? c.n_rows * (int64_t)sizeof *c.ref_key : 0);
    return PREFOPT_OK;
}
