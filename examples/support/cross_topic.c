/* Pairs by topic, and folds over topics: features are standardised on the training texts, the
 * reward is fitted by the library's Bradley-Terry trainer, held-out pairs are scored. */
#include "cross_topic.h"

#include <math.h>

#include "byte_texts.h"
#include "cli.h"
#include "text_features.h"

/* ---------------------------------------------------------------- reading */

static void *must(void *pointer)
{
    if (pointer == NULL) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    return pointer;
}

static int64_t *integers(int64_t n)
{
    return must(calloc((size_t)(n > 0 ? n : 1), sizeof(int64_t)));
}

/* The first line that is not blank. */
static char *first_line(const prefopt_row *row)
{
    char *text = byte_text(row->prompt, row->prompt_len), *begin = text;
    while (*begin == '\n' || *begin == ' ')
        begin++;
    begin[strcspn(begin, "\n")] = '\0';
    memmove(text, begin, strlen(begin) + 1);
    return text;
}

static void read_topics(topic_pairs *p, const prefopt_dataset *data, const char *path)
{
    p->topic_names = must(calloc((size_t)p->n_pairs, sizeof *p->topic_names));
    for (int64_t i = 0; i < p->n_pairs; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        CALL(prefopt_dataset_row(data, i, &row));
        if (row.kind != PREFOPT_ROW_PAIR) {
            fprintf(stderr, "%s: row %lld is no pair, expected \"chosen\" and \"rejected\"\n", path,
                    (long long)i + 1);
            exit(1);
        }
        char *name = first_line(&row);
        int64_t t = 0;
        while (t < p->n_topics && strcmp(p->topic_names[t], name) != 0)
            t++;
        if (t < p->n_topics)
            free(name);
        else
            p->topic_names[p->n_topics++] = name;
        p->topic[i] = t;
    }
}

static void deal_topics(topic_pairs *p, int64_t deal, uint64_t seed)
{
    int64_t *order = integers(p->n_topics);
    p->group_of_topic = integers(p->n_topics);
    p->n_groups = p->n_topics <= deal ? p->n_topics : deal;
    CALL(prefopt_shuffle_order(seed, 0, p->n_topics, order));
    for (int64_t k = 0; k < p->n_topics; k++)
        p->group_of_topic[p->n_topics <= deal ? k : order[k]] = k % p->n_groups;
    for (int64_t i = 0; i < p->n_pairs; i++)
        p->group[i] = p->group_of_topic[p->topic[i]];
    free(order);
}

/* A text is prompt and completion together, once however many pairs it is in. */
typedef struct {
    const int32_t *tokens;
    int64_t len, prompt_len, sequence;
} text_key;

static int compare_texts(const void *one, const void *other)
{
    const text_key *a = one, *b = other;
    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    if (a->prompt_len != b->prompt_len)
        return a->prompt_len < b->prompt_len ? -1 : 1;
    return a->len == 0 ? 0 : memcmp(a->tokens, b->tokens, (size_t)a->len * sizeof *a->tokens);
}

static void add_text(topic_pairs *p, const text_key *key)
{
    int64_t t = p->n_texts++, len = key->len - key->prompt_len;
    char *text = byte_text(key->tokens + key->prompt_len, len);
    text_features(text, len, p->features + t * TEXT_FEATURES);
    p->length[t] = (double)len;
    p->text_group[t] = p->group[key->sequence / 2];
    free(text);
}

/* For the many fits a text is one token, its number: nothing has to go through its bytes again. */
static void number_texts(topic_pairs *p)
{
    prefopt_row row;
    CALL(prefopt_row_init(&row, sizeof row));
    CALL(prefopt_dataset_create(&p->numbers, p->context));
    CALL(prefopt_dataset_create(&p->pairs, p->context));
    row.kind = PREFOPT_ROW_COMPLETIONS;
    row.n_completions = 1;
    row.completion_offsets = (int64_t[]){0, 1};
    for (int32_t t = 0; t < p->n_texts; t++) {
        row.completions = &t;
        CALL(prefopt_dataset_append(p->numbers, &row));
    }
    for (int64_t i = 0; i < p->n_pairs; i++) {
        int32_t chosen = (int32_t)p->chosen[i], rejected = (int32_t)p->rejected[i];
        CALL(prefopt_dataset_append_pair(p->pairs, NULL, 0, &chosen, 1, &rejected, 1, 1, 1, 0));
    }
}

static void read_texts(topic_pairs *p, const prefopt_dataset *data)
{
    prefopt_sequences s = {.struct_size = sizeof s};
    CALL(prefopt_dataset_sequences(data, &s));
    text_key *key = must(malloc((size_t)s.n * sizeof *key));
    for (int64_t i = 0; i < s.n; i++)
        key[i] = (text_key){s.tokens + s.offsets[i], s.offsets[i + 1] - s.offsets[i],
                            s.prompt_len[i], i};
    qsort(key, (size_t)s.n, sizeof *key, compare_texts);
    p->n_features = TEXT_FEATURES;
    p->features = doubles(s.n * TEXT_FEATURES);
    p->length = doubles(s.n);
    p->text_group = integers(s.n);
    for (int64_t k = 0; k < s.n; k++) {
        if (k == 0 || compare_texts(&key[k - 1], &key[k]) != 0)
            add_text(p, &key[k]);
        int64_t *of = key[k].sequence % 2 == 0 ? p->chosen : p->rejected;
        of[key[k].sequence / 2] = p->n_texts - 1;
    }
    free(key);
    number_texts(p);
}

void topic_pairs_read(topic_pairs *p, prefopt_context *context, const char *path, int64_t deal,
                      uint64_t seed)
{
    *p = (topic_pairs){.context = context};
    prefopt_dataset *data = byte_texts_read(context, path, NULL);
    p->n_pairs = prefopt_dataset_size(data);
    p->topic = integers(p->n_pairs);
    p->group = integers(p->n_pairs);
    p->chosen = integers(p->n_pairs);
    p->rejected = integers(p->n_pairs);
    read_topics(p, data, path);
    if (p->n_topics < 4) {
        fprintf(stderr, "%s has %lld topics, expected at least 4\n", path, (long long)p->n_topics);
        exit(1);
    }
    deal_topics(p, deal, seed);
    read_texts(p, data);
    prefopt_dataset_destroy(data);
}

void topic_pairs_free(topic_pairs *p)
{
    for (int64_t t = 0; t < p->n_topics; t++)
        free(p->topic_names[t]);
    free(p->topic_names);
    free(p->topic);
    free(p->group);
    free(p->group_of_topic);
    free(p->text_group);
    free(p->chosen);
    free(p->rejected);
    free(p->length);
    free(p->features);
    prefopt_dataset_destroy(p->numbers);
    prefopt_dataset_destroy(p->pairs);
}

/* ---------------------------------------------------------------- one fit */

/* The first columns of the features, by mean and standard deviation of the texts of training
 * groups. */
static double *standardised(const topic_pairs *p, int64_t width, const int *held)
{
    double *z = doubles(p->n_texts * width);
    for (int64_t k = 0; k < width; k++) {
        double n = 0, mean = 0, square = 0;
        for (int64_t t = 0; t < p->n_texts; t++)
            if (!held[p->text_group[t]]) {
                n++;
                mean += p->features[t * p->n_features + k];
            }
        mean /= n;
        for (int64_t t = 0; t < p->n_texts; t++)
            if (!held[p->text_group[t]])
                square += pow(p->features[t * p->n_features + k] - mean, 2);
        double scale = square > 0 ? 1 / sqrt(square / n) : 0; /* a constant says nothing */
        for (int64_t t = 0; t < p->n_texts; t++)
            z[t * width + k] = (p->features[t * p->n_features + k] - mean) * scale;
    }
    return z;
}

static prefopt_dataset *training_pairs(const topic_pairs *p, const int *held)
{
    int64_t *rows = integers(p->n_pairs), n = 0;
    for (int64_t i = 0; i < p->n_pairs; i++)
        if (!held[p->group[i]])
            rows[n++] = i;
    prefopt_dataset *picked = NULL;
    CALL(prefopt_dataset_select(&picked, p->pairs, rows, n));
    free(rows);
    return picked;
}

/* Fits on the groups that are not held, and gives every text its score. theta may be NULL. */
static void fit(const topic_pairs *p, int64_t width, const int *held, int64_t n_ridges,
                const double *ridges, double *const *score, double *theta)
{
    prefopt_sequences texts = {.struct_size = sizeof texts};
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    prefopt_train_options options;
    prefopt_reward *reward = NULL;
    double *z = standardised(p, width, held);
    prefopt_dataset *pairs = training_pairs(p, held);
    CALL(prefopt_dataset_sequences(p->numbers, &texts));
    CALL(prefopt_reward_create_linear(&reward, p->context, &texts, width, z));
    CALL(prefopt_train_options_init(&options, sizeof options));
    options.tolerance = 1e-6;
    for (int64_t r = 0; r < n_ridges; r++) { /* each starts where the one before ended */
        prefopt_trainer *trainer = NULL;
        options.ridge = ridges[r];
        CALL(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, &options));
        CALL(prefopt_trainer_fit(trainer, NULL));
        prefopt_trainer_destroy(trainer);
        CALL(prefopt_reward_scores(reward, &texts, score[r]));
    }
    if (theta != NULL) {
        CALL(prefopt_reward_parameters(reward, &parameters));
        memcpy(theta, parameters.value, (size_t)width * sizeof *theta);
    }
    prefopt_reward_destroy(reward);
    prefopt_dataset_destroy(pairs);
    free(z);
}

static double log_sigmoid(double x) { return x > 0 ? -log1p(exp(-x)) : x - log1p(exp(x)); }

/* ---------------------------------------------------------------- folds */

/* From little to much: a fit starts from the one before. */
static const double grid[] = {1000, 300, 100, 30, 10, 3, 1};
enum { RIDGES = sizeof grid / sizeof grid[0] };

static double choose_ridge(const topic_pairs *p, int64_t width, const int *held)
{
    double total[RIDGES] = {0}, *score[RIDGES];
    int *inner = must(malloc((size_t)p->n_groups * sizeof *inner));
    for (int r = 0; r < RIDGES; r++)
        score[r] = doubles(p->n_texts);
    for (int64_t g = 0; g < p->n_groups; g++) {
        if (held[g])
            continue;
        memcpy(inner, held, (size_t)p->n_groups * sizeof *inner);
        inner[g] = 1;
        fit(p, width, inner, RIDGES, grid, score, NULL);
        for (int64_t i = 0; i < p->n_pairs; i++)
            for (int r = 0; r < RIDGES && p->group[i] == g; r++)
                total[r] += log_sigmoid(score[r][p->chosen[i]] - score[r][p->rejected[i]]);
    }
    int best = 0;
    for (int r = 0; r < RIDGES; r++) {
        best = total[r] > total[best] ? r : best;
        free(score[r]);
    }
    free(inner);
    return grid[best];
}

static void judge(cross_topic *out, const topic_pairs *p, const int *held, const double *score,
                  double *times)
{
    for (int64_t i = 0; i < p->n_pairs; i++) {
        if (!held[p->group[i]])
            continue;
        double margin = score[p->chosen[i]] - score[p->rejected[i]];
        out->right[i] += margin > 0 ? 1 : margin == 0 ? 0.5 : 0;
        out->log_likelihood[i] += log_sigmoid(margin);
        times[i]++;
    }
}

void cross_topic_run(cross_topic *out, const topic_pairs *p, int64_t n_features, int hold_out)
{
    int64_t n = p->n_groups, n_folds = hold_out == 1 ? n : n * (n - 1) / 2;
    *out = (cross_topic){.right = doubles(p->n_pairs),
                         .log_likelihood = doubles(p->n_pairs),
                         .ridge = doubles(n_folds)};
    double *times = doubles(p->n_pairs), *score = doubles(p->n_texts);
    int *held = must(calloc((size_t)n, sizeof *held));
    progress_line("folds", 0, n_folds);
    for (int64_t a = 0; a < n; a++)
        for (int64_t b = hold_out == 1 ? a : a + 1; b < (hold_out == 1 ? a + 1 : n); b++) {
            memset(held, 0, (size_t)n * sizeof *held);
            held[a] = held[b] = 1;
            double ridge = choose_ridge(p, n_features, held);
            fit(p, n_features, held, 1, &ridge, &score, NULL);
            judge(out, p, held, score, times);
            out->ridge[out->n_folds++] = ridge;
            progress_line("folds", out->n_folds, n_folds);
        }
    for (int64_t i = 0; i < p->n_pairs; i++) {
        out->right[i] /= times[i];
        out->log_likelihood[i] /= times[i];
    }
    free(times);
    free(score);
    free(held);
}

void cross_topic_free(cross_topic *c)
{
    free(c->right);
    free(c->log_likelihood);
    free(c->ridge);
}

void topic_pairs_fit(const topic_pairs *p, int64_t n_features, double ridge, double *theta)
{
    double *score = doubles(p->n_texts);
    int *held = must(calloc((size_t)p->n_groups, sizeof *held));
    fit(p, n_features, held, 1, &ridge, &score, theta);
    free(score);
    free(held);
}
