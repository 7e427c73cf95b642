/* One rank of an MPI job, for test_mpi.py:
 *
 *     mpi_ranks sums          sums and broadcasts longer than one call of MPI's
 *     mpi_ranks gradient      the gradient of all ranks against that of one process, and its bits
 *     mpi_ranks fail          a rank whose log-probabilities are no numbers
 *     mpi_ranks train DIR     12 steps, rank 0 saves after each; goes on with what is in DIR
 *     mpi_ranks train DIR N   the last rank kills itself after step N
 *
 * Rank 0 writes what it found on standard output. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "prefopt/mpi.h"
#include "prefopt/prefopt.h"
#include "train/pf_train.h"

enum { STEPS = 12, PAIRS = 7 };

static int rank, size;

static void need_(int fine, const char *what, const char *text)
{
    if (fine)
        return;
    fprintf(stderr, "rank %d: %s: %s\n", rank, what, text);
    MPI_Abort(MPI_COMM_WORLD, 9);
}
#define NEED(condition) need_(condition, #condition, "does not hold")
#define OK(call) need_((call) == PREFOPT_OK, #call, prefopt_last_error())

/* ---- a small language model and pairs of different weights */

typedef struct {
    prefopt_context *context;
    prefopt_policy *policy;
    prefopt_reference *reference;
    prefopt_dataset *pairs;
    prefopt_train_options options;
} setting;

static setting setting_new(uint64_t seed)
{
    setting s;
    prefopt_context_options context;
    prefopt_transformer_config c;
    OK(prefopt_context_options_init(&context, sizeof context));
    OK(prefopt_transformer_config_init(&c, sizeof c));
    context.threads = 1;
    context.byte_budget = 60000; /* a rank's part is evaluated in parts */
    OK(prefopt_context_create(&s.context, &context));
    c.vocab = 12;
    c.n_layers = 2;
    c.width = 16;
    c.n_heads = 2;
    c.ff_width = 24;
    c.max_positions = 12;
    c.rotary_fraction = 0.5;
    c.init_scale = 0.1;
    OK(prefopt_policy_create_transformer(&s.policy, s.context, &c, 1));
    OK(prefopt_reference_freeze(&s.reference, s.policy));
    prefopt_policy_destroy(s.policy);
    OK(prefopt_policy_create_transformer(&s.policy, s.context, &c, seed));
    OK(prefopt_dataset_create(&s.pairs, s.context));
    for (int32_t i = 0; i < PAIRS; i++) {
        int32_t prompt[] = {i, 11}, chosen[] = {(i + 1) % 10, 3}, rejected[] = {(i + 2) % 10, 4, 5};
        OK(prefopt_dataset_append_pair(s.pairs, prompt, 2, chosen, 2, rejected, 3, 0.5 + i, 1, 0));
    }
    OK(prefopt_train_options_init(&s.options, sizeof s.options));
    s.options.learning_rate = 1e-2;
    s.options.batch = 5;
    return s;
}

static prefopt_trainer *trainer_of(setting *s)
{
    prefopt_trainer *trainer;
    prefopt_evaluation_options evaluation;
    OK(prefopt_evaluation_options_init(&evaluation, sizeof evaluation));
    evaluation.every = 3;
    OK(prefopt_trainer_create_dpo(&trainer, s->policy, s->reference, s->pairs, NULL, &s->options));
    OK(prefopt_trainer_set_evaluation(trainer, s->pairs, s->reference, &evaluation));
    return trainer;
}

static void setting_free(setting *s, prefopt_trainer *trainer)
{
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(s->pairs);
    prefopt_reference_destroy(s->reference);
    prefopt_policy_destroy(s->policy);
    prefopt_context_destroy(s->context);
}

/* ---- what is checked */

static void sums(const prefopt_collective *c)
{
    int64_t n = 9000001;
    float *f = malloc((size_t)n * sizeof *f);
    double *d = malloc((size_t)n * sizeof *d);
    NEED(f != NULL && d != NULL);
    for (int64_t i = 0; i < n; i++) {
        f[i] = (float)(i % 1000 + rank);
        d[i] = (double)(i + rank);
    }
    NEED(c->sum_f32(c->payload, f, n) == 0 && c->sum_f64(c->payload, d, n) == 0);
    for (int64_t i = 0; i < n; i++) {
        int64_t ranks = (int64_t)size * (size - 1) / 2;
        NEED(f[i] == (float)(size * (i % 1000) + ranks));
        NEED(d[i] == (double)(size * i + ranks));
    }
    for (int root = 0; root < size; root++) {
        memset(f, rank, (size_t)n * sizeof *f);
        NEED(c->broadcast(c->payload, f, n * (int64_t)sizeof *f, root) == 0);
        for (int64_t i = 0; i < n * (int64_t)sizeof *f; i++)
            NEED(((char *)f)[i] == root);
    }
    free(f);
    free(d);
}

/* The bits of n floats are those of rank 0. */
static void same_everywhere(const float *value, int64_t n)
{
    float *first = malloc((size_t)n * sizeof *first);
    memcpy(first, value, (size_t)n * sizeof *first);
    MPI_Bcast(first, (int)n, MPI_FLOAT, 0, MPI_COMM_WORLD);
    NEED(memcmp(first, value, (size_t)n * sizeof *first) == 0);
    free(first);
}

static void gradient(const prefopt_collective *c)
{
    setting one = setting_new(7), all = setting_new(7 + (uint64_t)rank); /* rank 0's are taken */
    all.options.collective = c;
    prefopt_trainer *alone = trainer_of(&one), *together = trainer_of(&all);
    double largest = 0, grad_norm = 0;
    for (int step = 0; step < 3; step++) {
        prefopt_progress a = {.struct_size = sizeof a}, b = {.struct_size = sizeof b};
        OK(prefopt_trainer_run(alone, 1, &a));
        OK(prefopt_trainer_run(together, 1, &b));
        NEED(fabs(a.loss - b.loss) < 1e-6 && fabs(a.margin - b.margin) < 1e-6);
        NEED(fabs(a.accuracy - b.accuracy) < 1e-12 && a.tokens == b.tokens);
        NEED(fabs(a.eval_loss - b.eval_loss) < 1e-6 && a.best_step == b.best_step);
        const pf_slot *x = &alone->optimiser.slots[0], *y = &together->optimiser.slots[0];
        same_everywhere(y->grad, y->n);
        same_everywhere(y->value, y->n);
        grad_norm = a.grad_norm;
        for (int64_t i = 0; i < x->n && step == 0; i++)
            largest =
                fmax(largest, fabs((double)((float *)x->grad)[i] - (double)((float *)y->grad)[i]));
    }
    NEED(largest < 1e-6 * grad_norm);
    if (rank == 0)
        printf("largest difference %.3g, norm %.3g\n", largest, grad_norm);
    setting_free(&one, alone);
    setting_free(&all, together);
}

static void fail(const prefopt_collective *c)
{
    setting s = setting_new(7);
    s.options.collective = c;
    prefopt_trainer *trainer = trainer_of(&s);
    OK(prefopt_trainer_run(trainer, 1, NULL));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(s.policy, &p));
    float before = ((float *)p.value)[0];
    if (rank == size - 1) {
        for (int64_t i = 0; i < p.n; i++)
            ((float *)p.value)[i] = 1e30f;
        OK(prefopt_policy_updated(s.policy));
    }
    NEED(prefopt_trainer_run(trainer, 1, NULL) == PREFOPT_ERR_NUMERIC);
    char text[64];
    snprintf(text, sizeof text, "rank %d of %d: row ", size - 1, size);
    NEED(strstr(prefopt_last_error(), text) != NULL);
    NEED(rank == size - 1 || ((float *)p.value)[0] == before);
    if (rank == 0)
        printf("%s\n", prefopt_last_error());
    setting_free(&s, trainer);
}

/* ---- a run that is killed */

typedef struct {
    prefopt_trainer *trainer;
    const char *directory;
    int64_t die;
} saving;

static int32_t save(void *payload, const prefopt_progress *progress)
{
    saving *s = payload;
    int64_t step;
    (void)progress;
    OK(prefopt_trainer_step(s->trainer, &step));
    if (rank == 0)
        OK(prefopt_trainer_save(s->trainer, s->directory, NULL));
    if (rank == size - 1 && s->die > 0 && step == s->die)
        raise(SIGKILL);
    return PREFOPT_OK;
}

static void train(const prefopt_collective *c, const char *directory, int64_t die)
{
    saving saves = {.directory = directory, .die = die};
    setting s = setting_new(7);
    s.options.collective = c;
    s.options.progress = save;
    s.options.progress_payload = &saves;
    prefopt_trainer *trainer = saves.trainer = trainer_of(&s);
    int32_t status = prefopt_trainer_restore(trainer, directory);
    NEED(status == PREFOPT_OK || status == PREFOPT_ERR_IO);
    int64_t step;
    OK(prefopt_trainer_step(trainer, &step));
    if (rank == 0)
        printf("from %lld\n", (long long)step);
    fflush(stdout);
    OK(prefopt_trainer_run(trainer, STEPS - step, NULL));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(s.policy, &p));
    same_everywhere(p.value, p.n);
    if (rank == 0)
        printf("parameters %016llx\n",
               (unsigned long long)pf_hash(PF_HASH_START, p.value, (size_t)p.n * sizeof(float)));
    setting_free(&s, trainer);
}

int main(int argc, char **argv)
{
    prefopt_mpi *mpi = NULL;
    if (prefopt_mpi_create(&mpi, MPI_COMM_WORLD) != PREFOPT_ERR_STATE || mpi != NULL)
        return 1;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    NEED(strstr(prefopt_mpi_last_error(), "MPI_Init") != NULL);
    NEED(prefopt_mpi_create(NULL, MPI_COMM_WORLD) == PREFOPT_ERR_ARGUMENT);
    NEED(prefopt_mpi_create(&mpi, MPI_COMM_NULL) == PREFOPT_ERR_ARGUMENT && mpi == NULL);
    NEED(prefopt_mpi_collective(NULL) == NULL);
    need_(prefopt_mpi_create(&mpi, MPI_COMM_WORLD) == 0, "create", prefopt_mpi_last_error());
    const prefopt_collective *c = prefopt_mpi_collective(mpi);
    NEED(c->rank == rank && c->size == size);
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "sums") == 0)
        sums(c);
    else if (strcmp(what, "gradient") == 0)
        gradient(c);
    else if (strcmp(what, "fail") == 0)
        fail(c);
    else if (strcmp(what, "train") == 0 && argc > 2)
        train(c, argv[2], argc > 3 ? atoi(argv[3]) : 0);
    else
        need_(0, "usage", "mpi_ranks sums|gradient|fail|train DIR [N]");
    prefopt_mpi_destroy(mpi);
    prefopt_mpi_destroy(NULL);
    MPI_Finalize();
    return 0;
}
