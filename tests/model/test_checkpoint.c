/* Checkpoints read: what is there must be what config.json says, no less and no more. */
#define _GNU_SOURCE
#include "checkpoint_test.h"
#include "math/pf_ops.h"

static prefopt_context *context;
static char folder[PATH_ROOM];

static void setup(void)
{
    context = test_context(2);
    new_folder(folder);
}

static void teardown(void)
{
    remove_all(folder);
    prefopt_context_destroy(context);
}

/* ---------------------------------------------------------------- a file of the test's own */

/* Tensors of a shape, with what a test changes: each is written unless its name is `without`. */
typedef struct {
    const pf_shape *shape;
    const float *value;
    int32_t dtype;
    const char *without;
    const char *extra, *extra_dtype, *extra_shape; /* header's text; zeros as data */
    size_t extra_bytes;
    int transposed;     /* this tensor's dims are swapped; -1: none */
    int64_t first, end; /* tensors of this file; end 0: all */
} plan;

static void write_plan(const char *name, const plan *p)
{
    size_t size = p->dtype == PREFOPT_F32 ? 4 : 2, n_data = 0, n;
    int64_t end = p->end == 0 ? p->shape->n_tensors : p->end;
    char *header = calloc((size_t)p->shape->n_tensors + 2, 300), *at = header;
    unsigned char *data = calloc((size_t)p->shape->n + 1 + p->extra_bytes, 8);
    at += sprintf(at, "{\"__metadata__\":{}");
    for (int64_t i = p->first; i < end; i++) {
        const pf_tensor *t = &p->shape->tensors[i];
        int64_t m = t->rows * t->columns;
        if (p->without != NULL && strcmp(t->name, p->without) == 0)
            continue;
        at +=
            sprintf(at, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, pf_dtype_name(p->dtype));
        if (t->n_dims == 1)
            at += sprintf(at, "%d", (int)t->rows);
        else if (i == p->transposed)
            at += sprintf(at, "%d,%d", (int)t->columns, (int)t->rows);
        else
            at += sprintf(at, "%d,%d", (int)t->rows, (int)t->columns);
        at += sprintf(at, "],\"data_offsets\":[%zu,%zu]}", n_data, n_data + (size_t)m * size);
        if (p->dtype == PREFOPT_F32)
            memcpy(data + n_data, p->value + t->offset, (size_t)m * size);
        else if (p->dtype == PREFOPT_F16)
            pf_f16_from_f32(m, p->value + t->offset, (void *)(data + n_data));
        else
            pf_bf16_from_f32(m, p->value + t->offset, (void *)(data + n_data));
        n_data += (size_t)m * size;
    }
    if (p->extra != NULL) {
        at += sprintf(at, ",\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                      p->extra, p->extra_dtype, p->extra_shape, n_data, n_data + p->extra_bytes);
        n_data += p->extra_bytes;
    }
    sprintf(at, "}");
    char *bytes = make_safetensors(header, data, n_data, &n);
    put_file(folder, name, bytes, n);
    free(bytes);
    free(header);
    free(data);
}

static void write_config(const prefopt_transformer_config *config, int32_t head)
{
    char *text;
    int64_t n;
    OK(pf_config_text(context, config, head, PREFOPT_F32, &text, &n));
    put_file(folder, "config.json", text, (size_t)n);
    pf_free(context, text);
}

static int32_t read_all(const pf_shape *shape)
{
    prefopt_transformer_config config;
    int32_t head;
    float *value = calloc((size_t)shape->n, sizeof *value);
    int32_t status = pf_checkpoint_config(context, folder, &config, &head);
    int32_t again = pf_checkpoint_read(shape, folder, value);
    /* What the tensors' table tells, both see. */
    if (status != PREFOPT_OK)
        ck_assert_int_eq(again, status);
    free(value);
    return again;
}

#define BAD(text, shape) FAILS(PREFOPT_ERR_FORMAT, text, read_all(shape))

/* ---------------------------------------------------------------- tests */

START_TEST(test_dtypes)
{
    for (int k = 0; k < 12; k++) {
        prefopt_transformer_config config = small_config(), got;
        int32_t head;
        config.tied = k / 3 == 1;
        config.parallel_residual = k / 3 == 2;
        /* Large enough for more tasks than one. */
        config.vocab = k / 3 == 3 ? 20000 : 11;
        pf_shape *shape = make_shape(context, &config, k / 3 == 2 ? PF_HEAD_SCORE : PF_HEAD_LOGITS);
        float *value = make_values(shape, k);
        plan p = {.shape = shape, .value = value, .dtype = 1 + k % 3, .transposed = -1};
        write_config(&config, shape->head);
        write_plan("model.safetensors", &p);
        OK(pf_checkpoint_config(context, folder, &got, &head));
        ck_assert_mem_eq(&got, &config, sizeof got);
        ck_assert_int_eq(head, shape->head);
        float *back = read_values(shape, folder);
        ck_assert_mem_eq(back, value, (size_t)shape->n * sizeof *value);
        free(back);
        free(value);
        pf_shape_release(shape);
    }
}
END_TEST

START_TEST(test_tensors)
{
    prefopt_transformer_config config = small_config(), other;
    pf_shape *shape = make_shape(context, &config, PF_HEAD_LOGITS);
    float *value = make_values(shape, 1);
    const plan good = {.shape = shape, .value = value, .dtype = PREFOPT_F32, .transposed = -1};
    plan p = good;
    write_config(&config, PF_HEAD_LOGITS);
    for (int64_t i = 0; i < shape->n_tensors; i++) {
        char expected[200];
        p.without = shape->tensors[i].name;
        snprintf(expected, sizeof expected, "model.safetensors: tensor %s is missing, expected [",
                 p.without);
        write_plan("model.safetensors", &p);
        BAD(expected, shape);
    }
    p = good;
    p.transposed = 5 + 2; /* qkv's matrix or another: found below by its text */
    for (int64_t i = 0; i < shape->n_tensors; i++)
        if (strstr(shape->tensors[i].name, "layers.1.mlp.dense_h_to_4h.weight") != NULL)
            p.transposed = (int)i;
    write_plan("model.safetensors", &p);
    BAD("tensor gpt_neox.layers.1.mlp.dense_h_to_4h.weight is [8, 12], but config.json says "
        "[12, 8]",
        shape);
    p = good;
    p.extra = "gpt_neox.layers.1.attention.dense.scale";
    p.extra_dtype = "F32";
    p.extra_shape = "[2]";
    p.extra_bytes = 8;
    write_plan("model.safetensors", &p);
    BAD("tensor gpt_neox.layers.1.attention.dense.scale is none of the model", shape);
    /* Known buffers, in whatever dtype. */
    p.extra = "gpt_neox.layers.1.attention.bias\":{\"dtype\":\"BOOL\",\"shape\":[0],"
              "\"data_offsets\":[0,0]},\"gpt_neox.layers.0.attention.rotary_emb.inv_freq";
    write_plan("model.safetensors", &p);
    OK(read_all(shape));
    p.extra = "gpt_neox.layers.2.attention.bias";
    write_plan("model.safetensors", &p);
    BAD("tensor gpt_neox.layers.2.attention.bias is none of the model that config.json describes "
        "(config.json: num_hidden_layers is 2, but the tensors are of 3 layers)",
        shape);
    p.extra = "score.weight";
    write_plan("model.safetensors", &p);
    BAD("tensor score.weight is none of", shape);
    /* The config contradicts the tensors: both numbers. */
    write_plan("model.safetensors", &good);
    other = config;
    other.vocab = 12;
    write_config(&other, PF_HEAD_LOGITS);
    int32_t head;
    FAILS(PREFOPT_ERR_FORMAT,
          "tensor gpt_neox.embed_in.weight is [11, 8], but config.json says [12, 8]: vocab_size is "
          "12",
          pf_checkpoint_config(context, folder, &other, &head));
    other = config;
    other.n_layers = 3;
    write_config(&other, PF_HEAD_LOGITS);
    FAILS(PREFOPT_ERR_FORMAT, "num_hidden_layers is 3, but the tensors are of 2 layers",
          pf_checkpoint_config(context, folder, &other, &head));
    other.n_layers = 1;
    write_config(&other, PF_HEAD_LOGITS);
    FAILS(PREFOPT_ERR_FORMAT, "num_hidden_layers is 1, but the tensors are of 2 layers",
          pf_checkpoint_config(context, folder, &other, &head));
    write_config(&config, PF_HEAD_SCORE);
    FAILS(PREFOPT_ERR_FORMAT, "tensor score.weight is missing, expected [1, 8]",
          pf_checkpoint_config(context, folder, &other, &head));
    /* A configuration that changed after the shape was made of it. */
    other = config;
    other.rotary_base = 77;
    write_config(&other, PF_HEAD_LOGITS);
    FAILS(PREFOPT_ERR_FORMAT, "config.json: not the configuration",
          pf_checkpoint_read(shape, folder, value));
    free(value);
    pf_shape_release(shape);
}
END_TEST

/* A config that asks for terabytes is refused before anybody allocates them. */
START_TEST(test_huge)
{
    prefopt_transformer_config config = small_config(), other = config;
    int32_t head;
    pf_shape *shape = make_shape(context, &config, PF_HEAD_LOGITS);
    float *value = make_values(shape, 1);
    const plan p = {.shape = shape, .value = value, .dtype = PREFOPT_F32, .transposed = -1};
    write_plan("model.safetensors", &p);
    other.vocab = INT32_MAX;
    other.width = 1 << 20;
    write_config(&other, PF_HEAD_LOGITS);
    FAILS(PREFOPT_ERR_FORMAT, "is [11, 8], but config.json says [2147483647, 1048576]",
          pf_checkpoint_config(context, folder, &other, &head));
    free(value);
    pf_shape_release(shape);
}
END_TEST

START_TEST(test_tied)
{
    prefopt_transformer_config config = small_config();
    pf_shape *untied = make_shape(context, &config, PF_HEAD_LOGITS);
    config.tied = 1;
    pf_shape *tied = make_shape(context, &config, PF_HEAD_LOGITS);
    float *value = make_values(untied, 1);
    plan p = {.shape = untied, .value = value, .dtype = PREFOPT_F32, .transposed = -1};
    write_config(&config, PF_HEAD_LOGITS);
    write_plan("model.safetensors", &p);
    BAD("tensor embed_out.weight differs from gpt_neox.embed_in.weight", tied);
    memcpy(value + untied->output, value, 8 * 11 * sizeof *value);
    write_plan("model.safetensors", &p);
    OK(read_all(tied));
    value[untied->output + 5] = -0.0F;
    value[5] = 0;
    write_plan("model.safetensors", &p);
    BAD("tensor embed_out.weight differs", tied);
    free(value);
    pf_shape_release(tied);
    pf_shape_release(untied);
}
END_TEST

START_TEST(test_not_finite)
{
    prefopt_transformer_config config = small_config();
    config.vocab = 20000;
    pf_shape *shape = make_shape(context, &config, PF_HEAD_LOGITS);
    float *value = make_values(shape, 1);
    plan p = {.shape = shape, .value = value, .transposed = -1};
    write_config(&config, PF_HEAD_LOGITS);
    for (p.dtype = PREFOPT_F32; p.dtype <= PREFOPT_BF16; p.dtype++) {
        value[100003] = -INFINITY;
        value[shape->output + 7] = NAN;
        write_plan("model.safetensors", &p);
        BAD("tensor gpt_neox.embed_in.weight: [100003] is -inf, expected a finite number", shape);
        value[100003] = 1;
        write_plan("model.safetensors", &p);
        BAD("tensor embed_out.weight: [7] is nan", shape);
        value[shape->output + 7] = 1;
    }
    free(value);
    pf_shape_release(shape);
}
END_TEST

/* ---------------------------------------------------------------- shards */

static void write_index(const pf_shape *shape, int64_t first_of_b, const char *a, const char *b,
                        const char *more)
{
    char *text = calloc((size_t)shape->n_tensors + 2, 300), *at = text;
    at += sprintf(at, "{\"metadata\":{\"total_size\":1},\"weight_map\":{%s", more);
    for (int64_t i = 0; i < shape->n_tensors; i++)
        at += sprintf(at, "%s\"%s\":\"%s\"", i > 0 ? "," : "", shape->tensors[i].name,
                      i < first_of_b ? a : b);
    sprintf(at, "}}");
    put_text(folder, "model.safetensors.index.json", text);
    free(text);
}

START_TEST(test_shards)
{
    static const char *const a = "model-00001-of-00002.safetensors";
    static const char *const b = "model-00002-of-00002.safetensors";
    prefopt_transformer_config config = small_config();
    pf_shape *shape = make_shape(context, &config, PF_HEAD_LOGITS);
    float *value = make_values(shape, 1);
    plan p = {.shape = shape, .value = value, .dtype = PREFOPT_F32, .transposed = -1, .end = 9};
    const plan first = p;
    write_config(&config, PF_HEAD_LOGITS);
    FAILS(PREFOPT_ERR_IO, "has neither model.safetensors nor model.safetensors.index.json",
          read_all(shape));
    write_plan(a, &p);
    write_index(shape, 9, a, b, "");
    FAILS(PREFOPT_ERR_IO, "model-00002-of-00002.safetensors: opening failed", read_all(shape));
    p.first = 9;
    p.end = 0;
    p.dtype = PREFOPT_F16;
    write_plan(b, &p);
    float *back = read_values(shape, folder);
    ck_assert_mem_eq(back, value, (size_t)shape->n * sizeof *value);
    free(back);

    write_index(shape, 10, a, b, "");
    BAD("index.json: tensor", shape);
    BAD("is in model-00002-of-00002.safetensors, but weight_map says model-00001-of-00002", shape);
    write_index(shape, 9, a, b, "\"lost\":\"model-00001-of-00002.safetensors\",");
    BAD("tensor lost: weight_map says it is in model-00001-of-00002.safetensors, which lacks it",
        shape);
    write_index(shape, 9, a, "sub/../x", "");
    BAD("\"sub/../x\", expected the name of a file in the folder", shape);
    write_index(shape, 9, a, "..", "");
    BAD("\"..\", expected the name of a file", shape);
    write_index(shape, 9, a, "/etc/passwd", "");
    BAD("\"/etc/passwd\", expected the name of a file", shape);
    write_index(shape, 9, a, "", "");
    BAD("\"\", expected the name of a file", shape);
    write_index(shape, 9, a, ".", "");
    FAILS(PREFOPT_ERR_IO, "is no regular file", read_all(shape));
    put_text(folder, "model.safetensors.index.json", "{\"weight_map\":{\"a\":3}}");
    BAD("index.json: weight_map: a: not a string", shape);
    put_text(folder, "model.safetensors.index.json", "{\"weight_map\":{}}");
    BAD("weight_map names no file", shape);
    put_text(folder, "model.safetensors.index.json", "{\"weight_map\":[]}");
    BAD("weight_map is missing or not an object", shape);
    put_text(folder, "model.safetensors.index.json", "{");
    BAD("index.json: line 1", shape);
    /* A tensor that the index does not name, and one in two files. */
    write_index(shape, 9, a, b, "");
    p = first;
    p.extra = "more";
    p.extra_dtype = "F32";
    p.extra_shape = "[1]";
    p.extra_bytes = 4;
    write_plan(a, &p);
    BAD("tensor more is in model-00001-of-00002.safetensors, but weight_map says no file", shape);
    p = first;
    p.end = 10;
    write_plan(a, &p);
    BAD("is in two files", shape);
    /* The single file stands before the index. */
    p = first;
    p.end = 0;
    write_plan("model.safetensors", &p);
    OK(read_all(shape));
    free(value);
    pf_shape_release(shape);
}
END_TEST

START_TEST(test_files)
{
    prefopt_transformer_config config = small_config();
    pf_shape *shape = make_shape(context, &config, PF_HEAD_LOGITS);
    float *value = make_values(shape, 1);
    const plan p = {.shape = shape, .value = value, .dtype = PREFOPT_F32, .transposed = -1};
    write_plan("model.safetensors", &p);
    FAILS(PREFOPT_ERR_IO, "config.json: opening failed", read_all(shape));
    char *large = calloc(1 << 20, 2);
    put_file(folder, "config.json", large, 2 << 20);
    free(large);
    BAD("config.json: has 2097152 bytes, expected at most 1048576", shape);
    put_text(folder, "config.json", "{}");
    BAD("config.json: model_type is missing", shape);
    unlink(path_of(folder, "config.json"));
    /* A pipe is neither waited for nor read. */
    ck_assert_int_eq(mkfifo(path_of(folder, "config.json"), 0600), 0);
    FAILS(PREFOPT_ERR_IO, "config.json: is no regular file", read_all(shape));
    unlink(path_of(folder, "model.safetensors"));
    ck_assert_int_eq(mkfifo(path_of(folder, "model.safetensors"), 0600), 0);
    FAILS(PREFOPT_ERR_IO, "model.safetensors: is no regular file", read_all(shape));
    unlink(path_of(folder, "model.safetensors"));
    ck_assert_int_eq(mkdir(path_of(folder, "model.safetensors"), 0700), 0);
    FAILS(PREFOPT_ERR_IO, "model.safetensors: is no regular file", read_all(shape));
    rmdir(path_of(folder, "model.safetensors"));
    put_text(folder, "model.safetensors", "");
    BAD("model.safetensors: the file has 0 bytes", shape);
    float x;
    FAILS(PREFOPT_ERR_IO, "opening the folder failed",
          pf_checkpoint_read(shape, path_of(folder, "none"), &x));
    FAILS(PREFOPT_ERR_IO, "opening the folder failed",
          pf_checkpoint_read(shape, path_of(folder, "config.json"), &x));
    free(value);
    pf_shape_release(shape);
}
END_TEST

START_TEST(test_memory)
{
    counting_allocator allocator = {0};
    prefopt_context *counting = counting_context(&allocator);
    prefopt_transformer_config config = small_config(), got;
    int32_t head, status;
    pf_shape *shape = make_shape(counting, &config, PF_HEAD_LOGITS);
    float *value = make_values(shape, 1);
    const plan p = {.shape = shape, .value = value, .dtype = PREFOPT_F32, .transposed = -1};
    write_config(&config, PF_HEAD_LOGITS);
    write_plan("model.safetensors", &p);
    const int64_t before = allocator.live;
    for (int call = 0; call < 2; call++) {
        int64_t failures = 0;
        do {
            allocator.calls = 0;
            allocator.fail_at = ++failures;
            status = call == 0 ? pf_checkpoint_config(counting, folder, &got, &head)
                               : pf_checkpoint_read(shape, folder, value);
            if (status != PREFOPT_OK)
                ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
            ck_assert_int_eq(allocator.live, before);
        } while (status != PREFOPT_OK);
        ck_assert_int_gt(failures, 5);
    }
    free(value);
    pf_shape_release(shape);
    prefopt_context_destroy(counting);
}
END_TEST

/* A real one, and the configurations of real ones, where they are. */
START_TEST(test_outside)
{
    static const char *const configs[] = {"pythia-6.9b-deduped.config.json",
                                          "pythia-12b-deduped.config.json"};
    const char *tiny = PF_SHARED_FOLDER "/neox_tiny/A_parallel_f32";
    prefopt_transformer_config config;
    int32_t head;
    if (access(path_of(tiny, "config.json"), R_OK) != 0) {
        fprintf(stderr, "test_outside: left out, %s is not there\n", tiny);
        return;
    }
    OK(pf_checkpoint_config(context, tiny, &config, &head));
    ck_assert_int_eq(head, PF_HEAD_LOGITS);
    ck_assert_int_eq(config.vocab, 512);
    ck_assert_int_eq(config.n_layers, 3);
    ck_assert_int_eq(config.eos, 0);
    pf_shape *shape = make_shape(context, &config, head);
    float *value = read_values(shape, tiny);
    /* The same bytes at the same places: all tensors end to end, in the file's order. */
    size_t n = 0;
    char *bytes = get_file(tiny, "model.safetensors", &n);
    const pf_tensor *last = &shape->tensors[shape->n_tensors - 1];
    ck_assert_str_eq(last->name, "embed_out.weight");
    size_t last_bytes = (size_t)(last->rows * last->columns) * sizeof *value;
    ck_assert_mem_eq(value + last->offset, bytes + n - last_bytes, last_bytes);
    free(bytes);
    /* Written and read again. */
    OK(pf_checkpoint_write(shape, path_of(folder, "again"), value, PREFOPT_F32));
    float *back = read_values(shape, path_of(folder, "again"));
    ck_assert_mem_eq(back, value, (size_t)shape->n * sizeof *value);
    free(back);
    free(value);
    pf_shape_release(shape);
    for (int k = 0; k < 2; k++) {
        char *text = get_file(PF_SHARED_FOLDER "/configs", configs[k], &n);
        ck_assert_ptr_nonnull(text);
        OK(pf_config_parse(configs[k], text, (int64_t)n, &config, &head));
        ck_assert_int_eq(config.n_layers, k == 0 ? 32 : 36);
        free(text);
    }
}
END_TEST

TEST_MAIN_IN(setup, teardown, "checkpoint", test_dtypes, test_tensors, test_huge, test_tied,
             test_not_finite, test_shards, test_files, test_memory, test_outside)
