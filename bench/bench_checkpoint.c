/* Reading and writing a checkpoint of Pythia-70m's shape, beside read() and write() with fsync() of
 * the same bytes: bench_checkpoint [FOLDER TO WORK IN]. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "model/pf_transformer.h"

enum { REPEATS = 5 };

/* Memory as a policy has it: from the context, touched for the first time by what is timed. */
static float *fresh(prefopt_context *context, int64_t n)
{
    float *value = pf_alloc(context, n, sizeof *value);
    if (value == NULL)
        need(PREFOPT_ERR_MEMORY);
    return value;
}

static double plain_read(prefopt_context *context, const char *path, int64_t n)
{
    float *value = fresh(context, n);
    double start = now();
    int file = open(path, O_RDONLY | O_CLOEXEC);
    must(file >= 0, path);
    for (int64_t at = 0, bytes = n * (int64_t)sizeof *value; at < bytes;) {
        ssize_t got = read(file, (char *)value + at, (size_t)(bytes - at));
        must(got > 0, path);
        at += got;
    }
    close(file);
    double took = now() - start;
    pf_free(context, value);
    return took;
}

static double plain_write(const char *path, const float *value, int64_t n)
{
    double start = now();
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    must(file >= 0, path);
    for (int64_t at = 0, bytes = n * (int64_t)sizeof *value; at < bytes;) {
        ssize_t put = write(file, (const char *)value + at, (size_t)(bytes - at));
        must(put > 0, path);
        at += put;
    }
    must(fsync(file) == 0 && close(file) == 0, path);
    return now() - start;
}

static double library_read(const pf_shape *shape, const char *folder)
{
    prefopt_transformer_config config;
    int32_t head;
    float *value = fresh(shape->context, shape->n);
    double start = now();
    need(pf_checkpoint_config(shape->context, folder, &config, &head));
    need(pf_checkpoint_read(shape, folder, value));
    double took = now() - start;
    pf_free(shape->context, value);
    return took;
}

static double least(double a, double b) { return a < b ? a : b; }

int main(int argc, char **argv)
{
    static const char *const names[] = {"", "f32", "f16", "bf16"};
    char base[4096], folder[4200], plain[4200], weights[4300];
    prefopt_context *context;
    prefopt_transformer_config config;
    pf_shape *shape;
    snprintf(base, sizeof base, "%s/prefopt-bench-XXXXXX", argc > 1 ? argv[1] : ".");
    must(mkdtemp(base) != NULL, base);
    snprintf(folder, sizeof folder, "%s/model", base);
    snprintf(plain, sizeof plain, "%s/plain", base);
    snprintf(weights, sizeof weights, "%s/model.safetensors", folder);
    need(prefopt_context_create(&context, NULL));
    need(prefopt_transformer_config_init(&config, sizeof config));
    need(pf_shape_create(&shape, context, &config, PF_HEAD_LOGITS));
    float *value = fresh(context, shape->n);
    for (int64_t i = 0; i < shape->n; i++)
        value[i] = (float)(i % 1013) / 1013;

    double bytes = (double)shape->n * sizeof *value, read_best = 1e9, write_best = 1e9;
    for (int32_t dtype = PREFOPT_F32; dtype <= PREFOPT_BF16; dtype++) {
        double load = 1e9, save = 1e9;
        for (int i = 0; i < REPEATS; i++) {
            double start = now();
            need(pf_checkpoint_write(shape, folder, value, dtype));
            save = least(save, now() - start);
            load = least(load, library_read(shape, folder));
            if (dtype != PREFOPT_F32)
                continue;
            write_best = least(write_best, plain_write(plain, value, shape->n));
            read_best = least(read_best, plain_read(context, plain, shape->n));
        }
        printf("checkpoint.load_%s %.4g s\n", names[dtype], load);
        printf("checkpoint.save_%s %.4g s\n", names[dtype], save);
        if (dtype != PREFOPT_F32)
            continue;
        printf("checkpoint.load_speed %.4g GB/s\n", bytes / load / 1e9);
        printf("checkpoint.save_speed %.4g GB/s\n", bytes / save / 1e9);
        printf("checkpoint.plain_read %.4g s\n", read_best);
        printf("checkpoint.plain_write %.4g s\n", write_best);
    }
    unlink(plain);
    unlink(weights);
    snprintf(weights, sizeof weights, "%s/config.json", folder);
    unlink(weights);
    rmdir(folder);
    rmdir(base);
    pf_free(context, value);
    pf_shape_release(shape);
    prefopt_context_destroy(context);
    return 0;
}
