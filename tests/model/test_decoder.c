/* The decoder against a plain forward pass in double precision, and against itself: branching, rows
 * that leave, any batch, any number of threads. */
#include "model/pf_decoder.h"
#include "model_test.h"
#include "neox_double.h"

static prefopt_transformer_config small_config(void)
{
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = 37;
    c.n_layers = 2;
    c.width = 24;
    c.n_heads = 3;
    c.ff_width = 40;
    c.max_positions = 90;
    c.rotary_fraction = 0.5;
    return c;
}

/* Weights far enough from 0 that every part shows: gains about 1, the rest random. */
static float *random_weights(const pf_shape *shape, uint64_t seed)
{
    float *value = malloc((size_t)shape->n * sizeof *value);
    for (int64_t t = 0; t < shape->n_tensors; t++) {
        const pf_tensor *tensor = &shape->tensors[t];
        double spread = tensor->n_dims == 2 ? 1 / sqrt((double)tensor->columns) : 0.3;
        bool gain = strstr(tensor->name, "norm.weight") != NULL;
        for (int64_t i = 0; i < tensor->rows * tensor->columns; i++)
            value[tensor->offset + i] =
                (float)(spread * pf_normal(seed, (uint64_t)t, (uint64_t)i) + (gain ? 1 : 0));
    }
    return value;
}

/* logits [vocab] of the token after n tokens, in double. */
static void plain_logits(const pf_shape *s, const float *value, const int32_t *tokens, int64_t n,
                         double *logits)
{
    int64_t d = s->config.width;
    double *theta = malloc((size_t)s->n * sizeof *theta);
    double *hidden = malloc((size_t)(n * d) * sizeof *hidden);
    for (int64_t i = 0; i < s->n; i++)
        theta[i] = (double)value[i];
    double_hidden(s, theta, tokens, n, hidden);
    double_linear(s->config.vocab, d, theta + s->output, NULL, hidden + (n - 1) * d, logits);
    free(hidden);
    free(theta);
}

typedef struct {
    prefopt_context *context;
    pf_shape *shape;
    float *value;
    pf_decoder *decoder;
} world;

static world make_world(prefopt_context *context, const prefopt_transformer_config *config,
                        float scale)
{
    world w = {.context = context};
    OK(pf_shape_create(&w.shape, context, config, PF_HEAD_LOGITS));
    w.value = random_weights(w.shape, 5);
    OK(pf_decoder_create(&w.decoder, w.shape, w.value, scale, NULL));
    return w;
}

static void end_world(world *w)
{
    pf_decoder_destroy(w->decoder);
    pf_shape_release(w->shape);
    free(w->value);
    prefopt_context_destroy(w->context);
}

static int32_t token_at(const world *w, int64_t row, int64_t t)
{
    return (int32_t)pf_uniform_int(9, (uint64_t)row, (uint64_t)t, w->shape->config.vocab);
}

/* What a row is made of: at most 200 tokens. */
typedef struct {
    int64_t n;
    int32_t tokens[200];
} path;

static void check_row(const world *w, const path *p, int64_t row)
{
    pf_distributions d;
    pf_decoder_distributions(w->decoder, &d);
    double *logits = malloc((size_t)d.vocab * sizeof *logits), total = 0, most = -INFINITY;
    plain_logits(w->shape, w->value, p->tokens, p->n, logits);
    for (int64_t v = 0; v < d.vocab; v++) {
        CLOSE((double)d.logits[row * d.vocab + v], logits[v], 1e-5);
        total += exp(logits[v]);
        most = fmax(most, (double)d.logits[row * d.vocab + v]);
    }
    CLOSE(d.log_normaliser[row], log(total), 1e-5);
    ck_assert(d.max[row] == most);
    double scaled = 0;
    for (int64_t v = 0; v < d.vocab; v++)
        scaled += exp((double)d.scale * (logits[v] - most));
    double sum = 0, scaled_sum = 0;
    for (int64_t t = 0; t < d.n_tiles; t++) {
        int64_t at = row * d.n_tiles + t;
        double max = (double)d.tile_max[at];
        sum += d.tile_sum[at] * exp(max - most);
        scaled_sum += d.tile_scaled[at] * exp((double)d.scale * (max - most));
    }
    CLOSE(most + log(sum), log(total), 1e-5);
    CLOSE(scaled_sum, scaled, 1e-4);
    free(logits);
}

static list prompts_of(const world *w, int64_t n, const int64_t *length, path *paths)
{
    list l = list_new();
    for (int64_t i = 0; i < n; i++) {
        paths[i].n = length[i];
        for (int64_t t = 0; t < length[i]; t++)
            paths[i].tokens[t] = token_at(w, i, t);
        list_add(&l, paths[i].tokens, length[i], NULL, 0);
    }
    return l;
}

/* A step of n rows; paths become their children's. */
static void step(const world *w, int64_t n, const int64_t *parent, const int32_t *token,
                 path *paths)
{
    path *old = malloc(64 * sizeof *old);
    memcpy(old, paths, 64 * sizeof *old);
    for (int64_t i = 0; i < n; i++) {
        paths[i] = old[parent[i]];
        paths[i].tokens[paths[i].n++] = token[i];
    }
    free(old);
    OK(pf_decoder_step(w->decoder, n, parent, token));
}

/* ---- against the reference */

static void check_config(const prefopt_transformer_config *config, float scale)
{
    world w = make_world(test_context(2), config, scale);
    path *paths = calloc(64, sizeof *paths);
    const int64_t length[] = {1, 70, 6};
    list l = prompts_of(&w, 3, length, paths);
    OK(pf_decoder_prompts(w.decoder, &l.view));
    for (int64_t i = 0; i < 3; i++)
        check_row(&w, &paths[i], i);
    const int64_t parent[] = {2, 0, 1, 0, 2};
    int32_t token[5];
    for (int64_t t = 0; t < 3; t++) {
        for (int64_t i = 0; i < 5; i++)
            token[i] = token_at(&w, 50 + i, t);
        step(&w, 5, parent, token, paths);
        for (int64_t i = 0; i < 5; i++)
            check_row(&w, &paths[i], i);
    }
    list_free(&l);
    free(paths);
    end_world(&w);
}

START_TEST(agrees_with_a_plain_forward)
{
    prefopt_transformer_config c = small_config();
    check_config(&c, 1);
    c.parallel_residual = 0;
    check_config(&c, 0.5f);
    c.tied = 1;
    c.activation = PREFOPT_GELU_TANH;
    c.rotary_fraction = 1;
    check_config(&c, 2);
    c.parallel_residual = 1;
    c.rotary_fraction = 0.25;
    c.rotary_base = 500;
    c.vocab = 1100; /* three tiles */
    check_config(&c, 1);
    c.rotary_fraction = 0;
    c.n_heads = 1;
    c.n_layers = 1;
    c.width = 7;
    c.ff_width = 1;
    c.vocab = 513;
    check_config(&c, 1);
}
END_TEST

/* Rows branch in the middle of a page and at its end, leave, and change their order. */
START_TEST(rows_branch_and_leave)
{
    prefopt_transformer_config c = small_config();
    c.n_layers = 1;
    world w = make_world(test_context(2), &c, 1);
    path *paths = calloc(64, sizeof *paths);
    const int64_t length[] = {3, 9};
    list l = prompts_of(&w, 2, length, paths);
    OK(pf_decoder_prompts(w.decoder, &l.view));
    int64_t rows = 2, parent[64];
    int32_t token[64];
    for (int64_t t = 0; t < 2 * PF_DECODER_PAGE + 3; t++) {
        int64_t n = 0;
        for (int64_t i = rows - 1; i >= 0; i--) {
            int64_t children = (int64_t)pf_uniform_int(3, (uint64_t)t, (uint64_t)i, 4);
            if (t % PF_DECODER_PAGE == 0 && rows < 20)
                children = 3;
            else if (rows > 4 && children == 3)
                children = 0;
            else if (children > 1 && rows + n > 30)
                children = 1;
            if (i == 0 && n == 0 && children == 0)
                children = 1;
            while (children-- > 0 && n < 40)
                parent[n++] = i;
        }
        for (int64_t i = 0; i < n; i++)
            token[i] = token_at(&w, i + 100, t);
        step(&w, n, parent, token, paths);
        rows = n;
        check_row(&w, &paths[rows - 1], rows - 1);
        if (t % 8 == 0 || t % PF_DECODER_PAGE < 2)
            for (int64_t i = 0; i < rows; i++)
                check_row(&w, &paths[i], i);
    }
    /* It starts again with other prompts. */
    prefopt_sequences second = pf_sequences_part(&l.view, 1, 1);
    const int64_t no_parent[] = {0};
    paths[0].n = length[1];
    memcpy(paths[0].tokens, pf_sequence_tokens(&l.view, 1), (size_t)length[1] * sizeof(int32_t));
    OK(pf_decoder_prompts(w.decoder, &second));
    check_row(&w, &paths[0], 0);
    step(&w, 1, no_parent, token, paths);
    check_row(&w, &paths[0], 0);
    list_free(&l);
    free(paths);
    end_world(&w);
}
END_TEST

/* Up to the last position there is. */
START_TEST(all_positions)
{
    prefopt_transformer_config c = small_config();
    world w = make_world(test_context(1), &c, 1);
    path *paths = calloc(64, sizeof *paths);
    const int64_t length[] = {84}, parent[] = {0};
    list l = prompts_of(&w, 1, length, paths);
    OK(pf_decoder_prompts(w.decoder, &l.view));
    while (paths[0].n < c.max_positions)
        step(&w, 1, parent, &(int32_t){token_at(&w, 1, paths[0].n)}, paths);
    check_row(&w, &paths[0], 0);
    list_free(&l);
    free(paths);
    end_world(&w);
}
END_TEST

/* ---- the same bits */

enum { PROMPTS = 3, EACH = 35, STEPS = 36 };

/* Logits and normalisers of the last step of PROMPTS * EACH rows of which each takes its own
 * tokens; of those rows alone where only >= 0 names a prompt, and one row of it where one is set.
 */
static void last_step(int32_t threads, int64_t only, bool one, float *logits, double *normaliser)
{
    prefopt_transformer_config c = small_config();
    c.vocab = 600;
    c.max_positions = 66 + STEPS;
    world w = make_world(test_context(threads), &c, 0.7f);
    path *paths = calloc(64, sizeof *paths);
    const int64_t length[PROMPTS] = {5, 66, 30};
    list l = prompts_of(&w, PROMPTS, length, paths);
    prefopt_sequences in = only < 0 ? l.view : pf_sequences_part(&l.view, only, 1);
    OK(pf_decoder_prompts(w.decoder, &in));
    int64_t each = one ? 1 : EACH, n = in.n * each, parent[PROMPTS * EACH];
    int32_t token[PROMPTS * EACH];
    for (int64_t t = 0; t < STEPS; t++) {
        for (int64_t i = 0; i < n; i++) {
            int64_t number = (only < 0 ? i / each : only) * EACH + i % each;
            parent[i] = t == 0 ? i / each : i;
            token[i] = token_at(&w, number, 1000 + t);
        }
        OK(pf_decoder_step(w.decoder, n, parent, token));
    }
    pf_distributions d;
    pf_decoder_distributions(w.decoder, &d);
    memcpy(logits, d.logits, (size_t)(n * d.vocab) * sizeof *logits);
    memcpy(normaliser, d.log_normaliser, (size_t)n * sizeof *normaliser);
    list_free(&l);
    free(paths);
    end_world(&w);
}

START_TEST(bits_do_not_depend_on_the_batch)
{
    enum { ROWS = PROMPTS * EACH, VOCAB = 600 };
    float *all = malloc(sizeof(float) * ROWS * VOCAB), *part = malloc(sizeof(float) * ROWS * VOCAB);
    double normaliser[ROWS], other[ROWS];
    last_step(1, -1, false, all, normaliser);
    for (int32_t threads = 2; threads <= 3; threads++) {
        last_step(threads, -1, false, part, other);
        ck_assert(memcmp(all, part, sizeof(float) * ROWS * VOCAB) == 0);
        ck_assert(memcmp(normaliser, other, sizeof other) == 0);
    }
    for (int64_t p = 0; p < PROMPTS; p++)
        for (int one = 0; one < 2; one++) {
            last_step(2, p, one, part, other);
            size_t rows = one ? 1 : EACH;
            ck_assert(memcmp(all + p * EACH * VOCAB, part, rows * VOCAB * sizeof(float)) == 0);
            ck_assert(memcmp(normaliser + p * EACH, other, rows * sizeof(double)) == 0);
        }
    free(all);
    free(part);
}
END_TEST

/* ---- whole sequences */

START_TEST(next_logprobs_of_sequences)
{
    prefopt_transformer_config c = small_config();
    for (int32_t small = 0; small < 2; small++) {
        prefopt_context_options options;
        OK(prefopt_context_options_init(&options, sizeof options));
        options.byte_budget = small ? 1 : 1 << 24; /* one at a time, or all at once */
        prefopt_context *context;
        OK(prefopt_context_create(&context, &options));
        world w = make_world(context, &c, 1);
        path *paths = calloc(64, sizeof *paths);
        const int64_t length[] = {4, 90, 1, 17};
        list l = prompts_of(&w, 4, length, paths);
        double *got = malloc((size_t)(4 * c.vocab) * sizeof *got);
        double *logits = malloc((size_t)c.vocab * sizeof *logits);
        OK(pf_decoder_next_logprobs(w.shape, w.value, NULL, &l.view, got));
        for (int64_t i = 0; i < 4; i++) {
            plain_logits(w.shape, w.value, paths[i].tokens, paths[i].n, logits);
            double total = 0;
            for (int64_t v = 0; v < c.vocab; v++)
                total += exp(logits[v]);
            for (int64_t v = 0; v < c.vocab; v++)
                CLOSE(got[i * c.vocab + v], logits[v] - log(total), 1e-5);
        }
        prefopt_sequences none = {.struct_size = sizeof none};
        OK(pf_decoder_next_logprobs(w.shape, w.value, NULL, &none, NULL));
        free(logits);
        free(got);
        list_free(&l);
        free(paths);
        end_world(&w);
    }
}
END_TEST

START_TEST(refuses)
{
    prefopt_transformer_config c = small_config();
    world w = make_world(test_context(1), &c, 1);
    double *next = malloc((size_t)(2 * c.vocab) * sizeof *next);
    int32_t tokens[91] = {0};
    list l = list_new();
    list_add(&l, tokens, 2, NULL, 0);
    list_add(&l, tokens, 0, NULL, 0);
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence 1 is empty, expected at least one token",
          pf_decoder_next_logprobs(w.shape, w.value, NULL, &l.view, next));
    list_free(&l);
    l = list_new();
    list_add(&l, tokens, 91, NULL, 0);
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence 0 has 91 tokens, expected at most max_positions = 90",
          pf_decoder_next_logprobs(w.shape, w.value, NULL, &l.view, next));
    list_free(&l);
    l = list_new();
    tokens[1] = 37;
    list_add(&l, tokens, 2, NULL, 0);
    FAILS(PREFOPT_ERR_ARGUMENT, "token 1 is 37",
          pf_decoder_next_logprobs(w.shape, w.value, NULL, &l.view, next));
    list_free(&l);
    /* A weight that is not finite. */
    l = list_new();
    tokens[1] = 3;
    list_add(&l, tokens, 1, NULL, 0);
    list_add(&l, tokens, 2, NULL, 0);
    w.value[w.shape->embedding + 3 * c.width] = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "sequence 1: the transformer's logits are not finite",
          pf_decoder_next_logprobs(w.shape, w.value, NULL, &l.view, next));
    list_free(&l);
    free(next);
    end_world(&w);
}
END_TEST

/* ---- memory */

START_TEST(memory_may_end)
{
    prefopt_transformer_config c = small_config();
    counting_allocator allocator = {0};
    prefopt_context *context = counting_context(&allocator);
    world w = make_world(context, &c, 0.5f);
    pf_decoder_destroy(w.decoder);
    w.decoder = NULL;
    int64_t live = allocator.live, failures = 0;
    path *paths = calloc(64, sizeof *paths);
    const int64_t length[] = {3, 9};
    list l = prompts_of(&w, 2, length, paths);
    int64_t parent[80];
    int32_t token[80];
    for (int64_t i = 0; i < 80; i++) {
        parent[i] = i % 2;
        token[i] = token_at(&w, i, 0);
    }
    for (bool done = false; !done; failures++) {
        allocator.calls = 0;
        allocator.fail_at = failures + 1;
        pf_decoder *decoder = NULL;
        int32_t status = pf_decoder_create(&decoder, w.shape, w.value, 0.5f, NULL);
        if (status == PREFOPT_OK)
            status = pf_decoder_prompts(decoder, &l.view);
        for (int64_t t = 0; t < 40 && status == PREFOPT_OK; t++)
            status = pf_decoder_step(decoder, t < 3 ? 2 + t : 80, parent, token);
        done = status == PREFOPT_OK;
        ck_assert(done || status == PREFOPT_ERR_MEMORY);
        allocator.fail_at = 0;
        /* What failed can be asked again. */
        if (decoder != NULL) {
            OK(pf_decoder_prompts(decoder, &l.view));
            w.decoder = decoder;
            check_row(&w, &paths[1], 1);
            OK(pf_decoder_step(decoder, 80, parent, token));
            OK(pf_decoder_step(decoder, 1, parent, token));
        }
        pf_decoder_destroy(decoder);
        ck_assert_int_eq(allocator.live, live);
    }
    ck_assert_int_ge(failures, 30);
    w.decoder = NULL;
    list_free(&l);
    free(paths);
    end_world(&w);
    ck_assert_int_eq(allocator.live, 0);
}
END_TEST

/* What the decoder says it needs is what it takes. */
START_TEST(bytes)
{
    prefopt_transformer_config c = small_config();
    world w = make_world(test_context(1), &c, 1);
    ck_assert_int_ge(pf_decoder_prompt_bytes(w.shape, 10), 10 * 2 * 2 * 24 * 4);
    ck_assert_int_ge(pf_decoder_row_bytes(w.shape, 10, 40) - pf_decoder_row_bytes(w.shape, 10, 20),
                     PF_DECODER_PAGE * 2 * 2 * 24 * 4);
    ck_assert_int_ge(pf_decoder_row_bytes(w.shape, 10, 0), 37 * 4);
    ck_assert(pf_decoder_prompt_bytes(w.shape, INT64_MAX / 2) == INT64_MAX);
    ck_assert(pf_decoder_row_bytes(w.shape, 1, INT64_MAX / 2) == INT64_MAX);
    pf_decoder_destroy(NULL);
    ck_assert(pf_decoder_shape(w.decoder) == w.shape);
    end_world(&w);
}
END_TEST

TEST_MAIN("decoder", agrees_with_a_plain_forward, rows_branch_and_leave, all_positions,
          bits_do_not_depend_on_the_batch, next_logprobs_of_sequences, refuses, memory_may_end,
          bytes)
