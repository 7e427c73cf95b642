/* Saving a trainer on a transformer of Pythia-70m's shape, with AdamW's moments, beside write() and
 * fsync() of the same bytes: bench_trainer_save [FOLDER TO WORK IN] [REPEATS]. For as long as a
 * save takes training stalls.
 *
 * Who saves again and again also gets rid of as many bytes as it writes, and freeing them takes the
 * file system its time: so there are plain works to compare with of new files alone, and with older
 * ones of the same sizes removed; and one of new files whose pages leave the cache as they are
 * written, which is how the library does it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"

enum { MOST = 99, PART = 8 << 20, BEHIND = 8 * PART };
enum { WRITE, WRITE_PASSING, WRITE_AND_REMOVE, SAVE, SAVE_AND_PRUNE, N_KINDS };
static const char *const kinds[N_KINDS] = {"write", "write_passing", "write_and_remove", "save",
                                           "save_and_prune"};

/* n bytes from memory to disk. passing: all but the last 64 MiB leave the cache meanwhile. */
static void plain_write(const char *path, const char *bytes, int64_t n, bool passing)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    must(file >= 0, path);
    for (int64_t at = 0; at < n;) {
        ssize_t put = write(file, bytes + at, (size_t)(passing && n - at > PART ? PART : n - at));
        must(put > 0, path);
        if (passing)
            sync_file_range(file, at, put, SYNC_FILE_RANGE_WRITE);
        at += put;
        if (passing && at > BEHIND) {
            sync_file_range(file, 0, at - BEHIND,
                            SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                SYNC_FILE_RANGE_WAIT_AFTER);
            posix_fadvise(file, at - BEHIND - PART, PART, POSIX_FADV_DONTNEED);
        }
    }
    must(fsync(file) == 0 && close(file) == 0, path);
}

static int64_t size_of(const char *folder, const char *name)
{
    char path[4400];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    must(stat(path, &info) == 0, path);
    return info.st_size;
}

static prefopt_trainer *make_trainer(prefopt_context *context, prefopt_policy **policy)
{
    prefopt_dataset *data;
    prefopt_reference *reference;
    prefopt_trainer *trainer;
    need(prefopt_policy_create_transformer(policy, context, NULL, 1));
    need(prefopt_dataset_create(&data, context));
    for (int32_t i = 0; i < 2; i++) {
        int32_t prompt[] = {1, 2, 3}, chosen[] = {4 + i, 5}, rejected[] = {6, 7};
        need(prefopt_dataset_append_pair(data, prompt, 3, chosen, 2, rejected, 2, 1, 1, 0));
    }
    need(prefopt_reference_freeze(&reference, *policy));
    need(prefopt_trainer_create_dpo(&trainer, *policy, reference, data, NULL, NULL));
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
    must(system(command) == 0, command);
}

typedef struct {
    char base[4096];
    prefopt_trainer *trainer;
    int64_t n[2]; /* bytes of the checkpoint's two large files */
    char *bytes;  /* of a plain one */
} work;

/* Two files of a checkpoint's sizes, OLD.0 and OLD.1 for `name` OLD. */
static void plain_files(const work *w, const char *name, bool passing)
{
    char path[4200];
    for (int k = 0; k < 2; k++) {
        snprintf(path, sizeof path, "%s/%s.%d", w->base, name, k);
        plain_write(path, w->bytes, w->n[k], passing);
    }
}

static void remove_plain(const work *w, const char *name)
{
    char path[4200];
    for (int k = 0; k < 2; k++) {
        snprintf(path, sizeof path, "%s/%s.%d", w->base, name, k);
        must(unlink(path) == 0, path);
    }
}

static void save(const work *w, int64_t keep)
{
    prefopt_save_options options;
    need(prefopt_save_options_init(&options, sizeof options));
    options.keep = keep;
    need(prefopt_trainer_save(w->trainer, w->base, &options));
}

/* Whatever is timed, as many bytes were written in the same way and lie there: the older ones,
 * which two of the kinds remove. *restore: of a checkpoint. */
static double timed(const work *w, int kind, double *restore)
{
    char folder[4200];
    bool saves = kind == SAVE || kind == SAVE_AND_PRUNE;
    if (saves) {
        need(prefopt_trainer_run(w->trainer, 1, NULL));
        save(w, 0);
        need(prefopt_trainer_run(w->trainer, 1, NULL));
    } else {
        plain_files(w, "old", kind == WRITE_PASSING);
    }
    rest();
    double start = now();
    if (saves)
        save(w, kind == SAVE_AND_PRUNE);
    else
        plain_files(w, "new", kind == WRITE_PASSING);
    if (kind == WRITE_AND_REMOVE)
        remove_plain(w, "old");
    double took = now() - start;
    if (!saves) {
        remove_plain(w, "new");
        if (kind != WRITE_AND_REMOVE)
            remove_plain(w, "old");
        return took;
    }
    start = now();
    need(prefopt_trainer_restore(w->trainer, w->base));
    *restore = now() - start;
    for (int64_t step = 0, n = kind == SAVE ? 2 : 1; n > 0; n--) {
        need(prefopt_checkpoint_latest(w->base, &step, folder, sizeof folder, NULL));
        remove_folder(folder);
    }
    return took;
}

static void show(const char *name, double *x, int n)
{
    printf("trainer_save.%s %.4g s\n", name, median(n, x));
    printf("trainer_save.%s_least %.4g s\n", name, x[0]);
}

/* Median over the rounds of a kind's time over another's of the same round. */
static void show_ratio(double took[N_KINDS][MOST], int a, int b, int n)
{
    double ratio[MOST];
    for (int i = 0; i < n; i++)
        ratio[i] = took[a][i] / took[b][i];
    printf("trainer_save.%s_over_%s %.3f times\n", kinds[a], kinds[b], median(n, ratio));
}

static void begin(work *w, prefopt_context *context, prefopt_policy **policy, const char *where)
{
    char folder[4200];
    snprintf(w->base, sizeof w->base, "%s/prefopt-bench-XXXXXX", where);
    must(mkdtemp(w->base) != NULL, w->base);
    w->trainer = make_trainer(context, policy);
    need(prefopt_trainer_run(w->trainer, 1, NULL));
    save(w, 0);
    snprintf(folder, sizeof folder, "%s/step-000000001", w->base);
    w->n[0] = size_of(folder, "model.safetensors");
    w->n[1] = size_of(folder, "optimiser.safetensors");
    int64_t most = w->n[0] > w->n[1] ? w->n[0] : w->n[1];
    w->bytes = malloc((size_t)most);
    must(w->bytes != NULL, "malloc");
    memset(w->bytes, 7, (size_t)most);
    remove_folder(folder);
}

int main(int argc, char **argv)
{
    static double took[N_KINDS][MOST], restore[N_KINDS * MOST];
    int repeats = argc > 2 ? atoi(argv[2]) : 5, n_restores = 0;
    must(repeats >= 1 && repeats <= MOST, "repeats");
    work w;
    prefopt_context *context;
    prefopt_policy *policy;
    need(prefopt_context_create(&context, NULL));
    begin(&w, context, &policy, argc > 1 ? argv[1] : ".");
    for (int i = 0; i < repeats; i++)
        for (int turn = 0; turn < N_KINDS; turn++) { /* each kind in each place */
            int kind = (turn + i) % N_KINDS;
            took[kind][i] = timed(&w, kind, &restore[n_restores]);
            n_restores += kind == SAVE || kind == SAVE_AND_PRUNE;
        }
    printf("trainer_save.size %.0f bytes\n", (double)(w.n[0] + w.n[1]));
    show_ratio(took, SAVE, WRITE, repeats);
    show_ratio(took, SAVE, WRITE_PASSING, repeats);
    show_ratio(took, SAVE_AND_PRUNE, WRITE, repeats);
    show_ratio(took, SAVE_AND_PRUNE, WRITE_PASSING, repeats);
    show_ratio(took, SAVE_AND_PRUNE, WRITE_AND_REMOVE, repeats);
    for (int kind = 0; kind < N_KINDS; kind++)
        show(kinds[kind], took[kind], repeats);
    show("restore", restore, n_restores);
    free(w.bytes);
    prefopt_trainer_destroy(w.trainer);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
    remove_folder(w.base);
    return 0;
}
