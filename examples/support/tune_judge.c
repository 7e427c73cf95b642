#include "tune_judge.h"

#include <math.h>

#include "cli.h"
#include "intervals.h"
#include "run_folder.h"
#include "tune_data.h"

prefopt_context *tune_judge_context(const tune_options *o)
{
    prefopt_context *context;
    prefopt_context_options options;
    CALL(prefopt_context_options_init(&options, sizeof options));
    options.threads = (int32_t)o->threads;
    options.byte_budget = (int64_t)o->memory << 20;
    CALL(prefopt_context_create(&context, &options));
    return context;
}

void tune_judge_same_tokenizer(const char *a, const char *b)
{
    char *one = language_path(a, "tokenizer.json"), *other = language_path(b, "tokenizer.json");
    json_t *x = run_folder_file(one), *y = run_folder_file(other);
    if (!json_equal(json_object_get(x, "hash"), json_object_get(y, "hash"))) {
        fprintf(stderr, "%s and %s differ: tokens of one are not those of the other\n", one, other);
        exit(1);
    }
}

void tune_judge_reward(language_model *reward, const language_model *model, const tune_options *o,
                       const char *model_folder)
{
    tune_judge_same_tokenizer(model_folder, o->reward);
    language_open_in(reward, model->context, o->reward, 1);
    if (reward->reward == NULL) {
        fprintf(stderr, "--reward %s is a language model, expected a reward model (tune reward)\n",
                o->reward);
        exit(1);
    }
    if (reward->vocab < model->vocab) {
        fprintf(stderr, "--reward %s has %lld tokens, %s may say %lld\n", o->reward,
                (long long)reward->vocab, model_folder, (long long)model->vocab);
        exit(1);
    }
    reward->positions = run_folder_config(o->reward, "max_position_embeddings", 0);
}

/* ---- what both print, and write as JSON */

static json_t *numbers;

static void put(const char *name, json_t *value) { json_object_set_new(numbers, name, value); }

/* JSON has no infinities. */
static json_t *real(double value) { return isfinite(value) ? json_real(value) : json_null(); }

static void show(const char *line, const char *name, interval i)
{
    printf("%-38s %10.4f  [%.4f, %.4f]\n", line, i.value, i.low, i.high);
    put(name, json_pack("[o, o, o]", real(i.value), real(i.low), real(i.high)));
}

static void finish(const tune_options *o)
{
    if (o->json != NULL)
        run_folder_json(o->json, numbers);
}

/* ---- eval */

typedef struct {
    prefopt_columns columns;
    int64_t n; /* pairs */
    double *value, *by_token, *length, *each;
} pair_values;

/* Interval of the mean over pairs of one side's numbers, or (side 2) of chosen less rejected. */
static interval side(pair_values *p, const double *values, int which)
{
    for (int64_t i = 0; i < p->n; i++)
        p->each[i] = which < 2 ? values[2 * i + which] : values[2 * i] - values[2 * i + 1];
    return interval_mean(p->n, p->each);
}

static double log_sigmoid(double x) { return x > 0 ? -log1p(exp(-x)) : x - log1p(exp(x)); }

/* Mean log-likelihood of the preferences: of P(chosen) = sigma(scale * difference). */
static interval likelihood(pair_values *p, const double *values, double scale)
{
    for (int64_t i = 0; i < p->n; i++) {
        double d = scale * (values[2 * i] - values[2 * i + 1]), label = p->columns.label[i];
        p->each[i] = (label > 0 ? label * log_sigmoid(d) : 0) +
                     (label < 1 ? (1 - label) * log_sigmoid(-d) : 0);
    }
    return interval_mean(p->n, p->each);
}

static void show_policy(pair_values *p)
{
    show("log-probability of chosen", "logps/chosen", side(p, p->value, 0));
    show("  of rejected", "logps/rejected", side(p, p->value, 1));
    show("  chosen by token", "logps_by_token/chosen", side(p, p->by_token, 0));
    show("  rejected by token", "logps_by_token/rejected", side(p, p->by_token, 1));
    show("accuracy by the sum", "accuracy", interval_accuracy(&p->columns, p->value));
    show("  by the mean of the tokens", "accuracy_by_token",
         interval_accuracy(&p->columns, p->by_token));
}

/* DPO's own reward, beta log(policy / reference). */
static void show_implicit(pair_values *p, const tune_options *o, const language_model *model,
                          const prefopt_dataset *pairs)
{
    language_model reference;
    tune_judge_same_tokenizer(o->model, o->reference);
    language_open_in(&reference, model->context, o->reference, 0);
    double *ref = language_values(&reference, pairs), *reward = doubles(2 * p->n);
    for (int64_t i = 0; i < 2 * p->n; i++)
        reward[i] = o->beta * (p->value[i] - ref[i]);
    show("reward of chosen", "rewards/chosen", side(p, reward, 0));
    show("  of rejected", "rewards/rejected", side(p, reward, 1));
    show("  margin", "rewards/margins", side(p, reward, 2));
    show("log-likelihood of the preferences", "preference_logp", likelihood(p, reward, 1));
    show("accuracy by the reward", "rewards/accuracies", interval_accuracy(&p->columns, reward));
    free(ref);
    free(reward);
    language_close(&reference);
}

void tune_judge_eval(const tune_options *o)
{
    language_model model;
    prefopt_context *context = tune_judge_context(o);
    language_open_in(&model, context, o->model, 1);
    if (model.reward != NULL) {
        model.positions = run_folder_config(o->model, "max_position_embeddings", 0);
        if (o->reference != NULL) {
            fprintf(stderr, "--reference is for a language model, %s is a reward model\n",
                    o->model);
            exit(2);
        }
    }
    prefopt_dataset *pairs = tune_data_read(o, &model, o->data, stdout, NULL);
    prefopt_sequences s = {.struct_size = sizeof s};
    pair_values p = {.columns = {.struct_size = sizeof p.columns}};
    CALL(prefopt_dataset_sequences(pairs, &s));
    CALL(prefopt_dataset_columns(pairs, &p.columns));
    p.n = p.columns.n_rows;
    p.value = language_values(&model, pairs);
    p.by_token = doubles(s.n);
    p.length = doubles(s.n);
    p.each = doubles(p.n);
    for (int64_t i = 0; i < s.n; i++) {
        p.length[i] = (double)(s.offsets[i + 1] - s.offsets[i] - s.prompt_len[i]);
        p.by_token[i] = p.length[i] > 0 ? p.value[i] / p.length[i] : 0;
    }
    numbers = kept_json(json_object());
    put("kind", json_string(model.policy != NULL ? "policy" : "reward"));
    put("pairs", json_integer(p.n));
    printf("\n%-38s %10s  95 %% interval\n",
           model.policy != NULL ? "language model, nats" : "reward model, nats", "mean");
    show("tokens of chosen", "tokens/chosen", side(&p, p.length, 0));
    show("  of rejected", "tokens/rejected", side(&p, p.length, 1));
    if (model.policy != NULL)
        show_policy(&p);
    else {
        show("score of chosen", "rewards/chosen", side(&p, p.value, 0));
        show("  of rejected", "rewards/rejected", side(&p, p.value, 1));
        show("  margin", "rewards/margins", side(&p, p.value, 2));
        show("log-likelihood of the preferences", "preference_logp", likelihood(&p, p.value, 1));
        show("accuracy by the score", "rewards/accuracies", interval_accuracy(&p.columns, p.value));
    }
    if (o->reference != NULL)
        show_implicit(&p, o, &model, pairs);
    show("accuracy of taking the longer one", "accuracy_longer",
         interval_accuracy(&p.columns, p.length));
    finish(o);
    free(p.value);
    free(p.by_token);
    free(p.length);
    free(p.each);
    prefopt_dataset_destroy(pairs);
    language_close(&model);
    prefopt_context_destroy(context);
}

/* ---- compare */

/* What one model answers. */
typedef struct {
    prefopt_dataset *samples;
    double *score, *length, *ended; /* one a sample */
} answers;

static int32_t drawn(void *payload, int64_t row, int64_t completion, int32_t token)
{
    int64_t *tokens = payload;
    (void)row, (void)completion, (void)token;
    progress_line("tokens (at most)", ++tokens[0], tokens[1]);
    return PREFOPT_OK;
}

static answers answer(const tune_options *o, const char *folder, prefopt_context *context,
                      prefopt_dataset **prompts)
{
    language_model model, reward;
    answers a = {0};
    language_open_in(&model, context, folder, 0);
    tune_judge_reward(&reward, &model, o, folder);
    if (*prompts == NULL) {
        if (reward.positions > 0 && reward.positions < model.positions)
            model.positions = reward.positions;
        *prompts = tune_data_read(o, &model, o->data, stdout, NULL);
    }
    prefopt_sampler_options sampler;
    CALL(prefopt_sampler_options_init(&sampler, sizeof sampler));
    int64_t n = (int64_t)o->samples, all = n * prefopt_dataset_size(*prompts);
    int64_t tokens[2] = {0, all * (int64_t)o->max_new};
    sampler.n = n;
    sampler.temperature = o->temperature;
    sampler.top_k = (int64_t)o->top_k;
    sampler.top_p = o->top_p;
    sampler.seed = (uint64_t)o->seed;
    sampler.max_tokens = (int64_t)o->max_new;
    sampler.token = drawn;
    sampler.token_payload = tokens;
    CALL(prefopt_sample(&a.samples, model.policy, *prompts, &sampler));
    if (isatty(STDERR_FILENO) && tokens[0] < tokens[1])
        fprintf(stderr, "\n");
    a.score = language_values(&reward, a.samples);
    a.length = doubles(all);
    a.ended = doubles(all);
    prefopt_sequences s = {.struct_size = sizeof s};
    CALL(prefopt_dataset_sequences(a.samples, &s));
    for (int64_t i = 0; i < s.n; i++) {
        a.length[i] = (double)(s.offsets[i + 1] - s.offsets[i] - s.prompt_len[i]);
        a.ended[i] =
            a.length[i] > 0 && model.eos >= 0 && s.tokens[s.offsets[i + 1] - 1] == model.eos;
    }
    language_close(&model);
    language_close(&reward);
    return a;
}

/* Of the means of each prompt's n numbers: prompts are what is independent. */
static interval over_prompts(int64_t prompts, int64_t n, const double *values)
{
    double *means = doubles(prompts);
    for (int64_t i = 0; i < prompts * n; i++)
        means[i / n] += values[i] / (double)n;
    interval result = interval_mean(prompts, means);
    free(means);
    return result;
}

void tune_judge_compare(const tune_options *o)
{
    prefopt_context *context = tune_judge_context(o);
    prefopt_dataset *prompts = NULL;
    answers both[2];
    if (o->words[0] != NULL && o->words[1] != NULL)
        tune_judge_same_tokenizer(o->words[0], o->words[1]);
    for (int k = 0; k < 2; k++)
        both[k] = answer(o, o->words[k], context, &prompts);
    int64_t n = (int64_t)o->samples, rows = prefopt_dataset_size(prompts), decided = 0;
    double *wins = doubles(rows), *difference = doubles(rows), mean = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t k = 0; k < n; k++) { /* each answer of A against each of B */
                double d = both[0].score[i * n + j] - both[1].score[i * n + k];
                wins[i] += (d > 0 ? 1 : d < 0 ? 0 : 0.5) / (double)(n * n);
                difference[i] += d / (double)(n * n);
                decided += d != 0;
            }
    for (int64_t i = 0; i < rows; i++)
        mean += wins[i] / (double)rows;
    numbers = kept_json(json_object());
    put("prompts", json_integer(rows));
    put("samples", json_integer(n));
    printf("\nA %s\nB %s\n\n%-38s %10s  95 %% interval\n", o->words[0], o->words[1], "", "mean");
    /* One answer a prompt: a share. More: the mean over prompts of each one's share. */
    show("A wins against B", "win_rate",
         n == 1 ? interval_share(mean, (double)rows) : interval_mean(rows, wins));
    show("score of A less that of B", "score_difference", interval_mean(rows, difference));
    static const char *const names[2][6] = {
        {"score of A", "tokens of A", "share of A that ends", "score/A", "tokens/A", "ended/A"},
        {"score of B", "tokens of B", "share of B that ends", "score/B", "tokens/B", "ended/B"}};
    for (int k = 0; k < 2; k++) {
        show(names[k][0], names[k][3], over_prompts(rows, n, both[k].score));
        show(names[k][1], names[k][4], over_prompts(rows, n, both[k].length));
        show(names[k][2], names[k][5], over_prompts(rows, n, both[k].ended));
    }
    if (decided == 0)
        printf("Every two answers have the same score: they are the same, or the reward says "
               "nothing.\n");
    finish(o);
    for (int k = 0; k < 2; k++) {
        prefopt_dataset_destroy(both[k].samples);
        free(both[k].score);
        free(both[k].length);
        free(both[k].ended);
    }
    free(wins);
    free(difference);
    prefopt_dataset_destroy(prompts);
    prefopt_context_destroy(context);
}
