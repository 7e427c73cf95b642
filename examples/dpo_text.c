/* DPO on pairs of text: a checkpoint in, a tuned checkpoint out. The program to read, or to copy
 * for one of your own: the calls one after the other. The one to tune with is tune, which also
 * logs, holds data out, and goes on after a crash.
 *
 *     dpo_text DIR FILE.jsonl[.gz] OUT [options]
 *
 * At first policy and reference are the same, so every margin is 0 and the loss is log 2: it says
 * so where they are not. */
#include <math.h>

#include "support/arguments.h"
#include "support/cli.h"
#include "support/language.h"

static const char usage[] =
    "dpo_text DIR FILE.jsonl[.gz] OUT [options]\n"
    "  DIR holds config.json, model.safetensors and tokenizer.json; each line of FILE has "
    "\"chosen\"\n"
    "  and \"rejected\", and \"prompt\" or none; OUT becomes the tuned checkpoint\n"
    "  --steps N           (50)\n"
    "  --batch N           pairs a step (4)\n"
    "  --beta B            (0.1)\n"
    "  --lr R              learning rate of AdamW (1e-5)\n"
    "  --max-prompt N      tokens; of a longer prompt the end is kept (256; 0: no limit)\n"
    "  --max-completion N  tokens; of a longer completion the beginning (256; 0: no limit)\n"
    "  --limit N           that many pairs from the start of the file (0: all)\n"
    "  --seed S            which pairs, in which order (0)";

/* The progress callback's. */
typedef struct {
    double start, tokens_a_step;
    int64_t every;
    int off; /* the first step's loss is not log 2, or its margin not 0 */
} run;

static int32_t show(void *payload, const prefopt_progress *p)
{
    run *r = payload;
    char line[200];
    double rate = (double)p->step * r->tokens_a_step / (language_seconds() - r->start);
    if (p->step == 1) { /* its numbers are from before its step */
        r->off = fabs(p->loss - log(2)) > 1e-4 || fabs(p->margin) > 1e-4;
        printf("step 0: loss %.6f, margin %.6f: %s\n", p->loss, p->margin,
               r->off ? "NOT log 2 and 0, as they should be for a policy equal to its reference"
                      : "log 2 and 0, as it should be");
    }
    snprintf(line, sizeof line,
             "step %lld/%lld  loss %.4f  accuracy %.2f  margin %+.4f  %.0f tokens/s  %.0f s left",
             (long long)p->step, (long long)p->n_steps, p->loss, p->accuracy, p->margin, rate,
             p->seconds_left);
    int keep = p->step == p->n_steps || p->step % r->every == 0;
    if (isatty(STDERR_FILENO)) /* written over, or wiped for the line that stays */
        fprintf(stderr, "\r\033[K%s", keep ? "" : line);
    if (keep)
        printf("%s\n", line);
    return fflush(stdout) == 0 ? PREFOPT_OK : PREFOPT_STOPPED;
}

/* The pairs that the steps will see: of more than that, some at random. */
static prefopt_dataset *some_of(prefopt_dataset *all, int64_t n, uint64_t seed)
{
    int64_t size = prefopt_dataset_size(all), *order = malloc((size_t)size * sizeof *order);
    prefopt_dataset *some;
    if (order == NULL) {
        fprintf(stderr, "no memory for the order of %lld pairs\n", (long long)size);
        exit(1);
    }
    CALL(prefopt_shuffle_order(seed, 0, size, order));
    CALL(prefopt_dataset_select(&some, all, order, n < size ? n : size));
    free(order);
    prefopt_dataset_destroy(all);
    return some;
}

int main(int argc, char **argv)
{
    double steps = 50, batch = 4, beta = 0.1, lr = 1e-5, max_prompt = 256, max_completion = 256,
           limit = 0, seed = 0;
    const char *words[3];
    const argument options[] = {{"--steps", &steps, 1, 1e9, .whole = 1},
                                {"--batch", &batch, 1, 1e6, .whole = 1},
                                {"--beta", &beta, 1e-9, 1e9, .whole = 0},
                                {"--lr", &lr, 1e-12, 10, .whole = 0},
                                {"--max-prompt", &max_prompt, 0, 1e9, .whole = 1},
                                {"--max-completion", &max_completion, 0, 1e9, .whole = 1},
                                {"--limit", &limit, 0, 1e15, .whole = 1},
                                {"--seed", &seed, 0, 9007199254740992.0, .whole = 1},
                                {0}};
    arguments_read(argc, argv, usage, options, words, 3, 3);
    language_model model;
    language_open(&model, words[0], 0);
    prefopt_dataset *pairs = language_pairs(&model, words[1], (int64_t)max_prompt,
                                            (int64_t)max_completion, (int64_t)limit, stdout);
    pairs = some_of(pairs, (int64_t)steps * (int64_t)batch, (uint64_t)seed);

    /* The reference is the policy as it is now; its numbers are computed here, with progress. */
    prefopt_reference *reference;
    double *ref_logp = language_values(&model, pairs);
    CALL(prefopt_dataset_set_column(pairs, PREFOPT_COLUMN_REF_LOGP, ref_logp));
    CALL(prefopt_reference_from_dataset(&reference, pairs));
    free(ref_logp);

    prefopt_sequences s = {.struct_size = sizeof s};
    CALL(prefopt_dataset_sequences(pairs, &s));
    run r = {.every = (int64_t)ceil(steps / 10)};
    r.tokens_a_step =
        fmin(batch, (double)s.n / 2) * 2 * (double)(s.offsets[s.n] - s.offsets[0]) / (double)s.n;
    prefopt_trainer *trainer;
    prefopt_dpo_options dpo;
    prefopt_train_options train;
    CALL(prefopt_dpo_options_init(&dpo, sizeof dpo));
    CALL(prefopt_train_options_init(&train, sizeof train));
    dpo.beta = beta;
    train.learning_rate = lr;
    train.clip_norm = 1;
    train.batch = (int64_t)batch;
    train.seed = (uint64_t)seed;
    train.progress = show;
    train.progress_payload = &r;
    CALL(prefopt_trainer_create_dpo(&trainer, model.policy, reference, pairs, &dpo, &train));
    r.start = language_seconds();
    CALL(prefopt_trainer_run(trainer, (int64_t)steps, NULL));

    CALL(prefopt_policy_save(model.policy, words[2]));
    char *from = language_path(words[0], "tokenizer.json");
    char *to = language_path(words[2], "tokenizer.json");
    language_copy(from, to);
    printf("%s: the tuned checkpoint\n", words[2]);
    prefopt_trainer_destroy(trainer);
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(pairs);
    language_close(&model);
    return r.off ? 1 : 0;
}
