/* Saving a trainer on a transformer of Pythia-70m's shape, with AdamW's moments, beside write() and
 * fsync() of the same bytes: bench_trainer_save [FOLDER TO WORK IN] [REPEATS]. For as long as a
 * save takes training stalls. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "prefopt/prefopt.h"

enum { MOST = 99 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(int32_t status)
{
    if (status != PREFOPT_OK) {
        fprintf(stderr, "%s: %s\n", prefopt_status_name(status), prefopt_last_error());
        exit(1);
    }
}

static void must_do(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

/* n bytes from memory to disk. */
static double plain_write(const char *path, const char *bytes, int64_t n)
{
    double start = seconds();
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    must_do(file >= 0, path);
    for (int64_t at = 0; at < n;) {
        ssize_t put = write(file, bytes + at, (size_t)(n - at));
        must_do(put > 0, path);
        at += put;
    }
    must_do(fsync(file) == 0 && close(file) == 0, path);
    return seconds() - start;
}

static int64_t size_of(const char *folder, const char *name)
{
    char path[4400];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    must_do(stat(path, &info) == 0, path);
    return info.st_size;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, compare);
    return n % 2 == 1 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static prefopt_trainer *make_trainer(prefopt_context *context, prefopt_policy **policy)
{
    prefopt_dataset *data;
    prefopt_reference *reference;
    prefopt_trainer *trainer;
    must(prefopt_policy_create_transformer(policy, context, NULL, 1));
    must(prefopt_dataset_create(&data, context));
    for (int32_t i = 0; i < 2; i++) {
        int32_t prompt[] = {1, 2, 3}, chosen[] = {4 + i, 5}, rejected[] = {6, 7};
        must(prefopt_dataset_append_pair(data, prompt, 3, chosen, 2, rejected, 2, 1, 1, 0));
    }
    must(prefopt_reference_freeze(&reference, *policy));
    must(prefopt_trainer_create_dpo(&trainer, *policy, reference, data, NULL, NULL));
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(data);
    return trainer;
}

/* What was written and removed before is off the disk, which slows down after much at once. */
static void rest(void)
{
    sync();
    sleep(2);
}

static void remove_folder(const char *folder)
{
    char command[4400];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    must_do(system(command) == 0, command);
}

static double timed_save(const prefopt_trainer *trainer, const char *base, int64_t keep)
{
    prefopt_save_options options;
    must(prefopt_save_options_init(&options, sizeof options));
    options.keep = keep;
    double start = seconds();
    must(prefopt_trainer_save(trainer, base, &options));
    return seconds() - start;
}

static void show(const char *name, double *x, int n)
{
    double middle = median(x, n);
    printf("trainer_save.%s %.4g s\n", name, middle);
    printf("trainer_save.%s_least %.4g s\n", name, x[0]);
}

int main(int argc, char **argv)
{
    char base[4096], folder[4200], plain[4200], other[4200];
    double save[MOST], prune[MOST], write[MOST], ratio[MOST], prune_ratio[MOST], restore[MOST];
    int repeats = argc > 2 ? atoi(argv[2]) : 5;
    must_do(repeats >= 1 && repeats <= MOST, "repeats");
    snprintf(base, sizeof base, "%s/prefopt-bench-XXXXXX", argc > 1 ? argv[1] : ".");
    must_do(mkdtemp(base) != NULL, base);
    snprintf(plain, sizeof plain, "%s/plain", base);
    snprintf(other, sizeof other, "%s/other", base);
    prefopt_context *context;
    prefopt_policy *policy;
    must(prefopt_context_create(&context, NULL));
    prefopt_trainer *trainer = make_trainer(context, &policy);
    must(prefopt_trainer_run(trainer, 1, NULL));
    must(prefopt_trainer_save(trainer, base, NULL));
    snprintf(folder, sizeof folder, "%s/step-000000001", base);
    int64_t n[2] = {size_of(folder, "model.safetensors"), size_of(folder, "optimiser.safetensors")};
    char *bytes = malloc((size_t)(n[0] > n[1] ? n[0] : n[1]));
    must_do(bytes != NULL, "malloc");
    memset(bytes, 7, (size_t)(n[0] > n[1] ? n[0] : n[1]));
    remove_folder(folder);

    /* By turns, each in each place: two plain files of the checkpoint's sizes; a save; a save after
     * which the one before it is removed. */
    for (int i = 0; i < repeats; i++) {
        for (int turn = 0; turn < 3; turn++) {
            int what = (turn + i) % 3;
            rest();
            if (what == 0) {
                write[i] = 0;
                for (int k = 0; k < 2; k++)
                    write[i] += plain_write(k == 0 ? plain : other, bytes, n[k]);
                must_do(unlink(plain) == 0 && unlink(other) == 0, plain);
                continue;
            }
            must(prefopt_trainer_run(trainer, 1, NULL));
            if (what == 2) {
                must(prefopt_trainer_save(trainer, base, NULL));
                must(prefopt_trainer_run(trainer, 1, NULL));
                rest();
            }
            *(what == 1 ? &save[i] : &prune[i]) = timed_save(trainer, base, what - 1);
            double start = seconds();
            must(prefopt_trainer_restore(trainer, base));
            restore[i] = seconds() - start;
            int64_t step = 0;
            must(prefopt_checkpoint_latest(base, &step, folder, sizeof folder, NULL));
            remove_folder(folder);
        }
        ratio[i] = save[i] / write[i];
        prune_ratio[i] = prune[i] / write[i];
    }
    printf("trainer_save.size %.0f bytes\n", (double)(n[0] + n[1]));
    show("write", write, repeats);
    show("save", save, repeats);
    show("save_and_prune", prune, repeats);
    show("restore", restore, repeats);
    printf("trainer_save.save_over_write %.3f times\n", median(ratio, repeats));
    printf("trainer_save.save_and_prune_over_write %.3f times\n", median(prune_ratio, repeats));
    free(bytes);
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
    remove_folder(base);
    return 0;
}
