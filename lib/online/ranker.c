/* The ranker: scores of sampled completions to preference pairs (lecture 22.5). */
#include <math.h>

#include "data/pf_dataset.h"
#include "online/pf_online.h"

static const prefopt_ranker_options defaults = {.struct_size = sizeof(prefopt_ranker_options),
                                                .soft_scale = 1};

int32_t prefopt_ranker_options_init(prefopt_ranker_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_ranker_options");
}

static int32_t check_choice(const char *name, int32_t value, int32_t highest)
{
    if (value < 0 || value > highest)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_rank: %s is %d, expected 0 to %d", name,
                       value, highest);
    return PREFOPT_OK;
}

int32_t pf_ranker_check(const prefopt_ranker_options *o)
{
    PF_TRY(check_choice("rule", o->rule, PREFOPT_PAIR_BEST_RANDOM));
    PF_TRY(check_choice("tie_rule", o->tie_rule, PREFOPT_TIES_HALF));
    PF_TRY(check_choice("soft_labels", o->soft_labels, 1));
    if (isnan(o->soft_scale) || isnan(o->margin_floor))
        return pf_fail(PREFOPT_ERR_NUMERIC, "prefopt_rank: %s is NaN",
                       isnan(o->soft_scale) ? "soft_scale" : "margin_floor");
    if (!(o->soft_scale > 0 && o->soft_scale < INFINITY))
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_rank: soft_scale is %g, expected a finite number above 0",
                       o->soft_scale);
    if (!(o->margin_floor >= 0 && o->margin_floor < INFINITY))
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_rank: margin_floor is %g, expected a finite number, at least 0",
                       o->margin_floor);
    if (!o->soft_labels && o->soft_scale != 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_rank: soft_scale is %g, but without soft_labels it has no use",
                       o->soft_scale);
    if (o->margin_floor > 0 && o->tie_rule != PREFOPT_TIES_DROP)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_rank: tie_rule is %d, but with margin_floor %g no tie is left for "
                       "it",
                       o->tie_rule, o->margin_floor);
    bool draws = o->rule == PREFOPT_PAIR_RANDOM || o->rule == PREFOPT_PAIR_BEST_RANDOM;
    if (!draws && o->seed != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_rank: seed is %llu, but rule %d does not draw",
                       (unsigned long long)o->seed, o->rule);
    return PREFOPT_OK;
}

static int32_t check_samples(const prefopt_columns *columns)
{
    if (columns->n_rows == 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_rank: samples has no row, expected at least 1 of kind COMPLETIONS");
    for (int64_t i = 0; i < columns->n_rows; i++)
        if (columns->kind[i] != PREFOPT_ROW_COMPLETIONS)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "prefopt_rank: row %lld of samples is of kind %d, expected COMPLETIONS "
                           "(%d)",
                           (long long)i, columns->kind[i], PREFOPT_ROW_COMPLETIONS);
    return PREFOPT_OK;
}

/* ---- scores */

/* Says at which row and completion the reward failed: sequence by sequence, as that is rare. first:
 * the first sequence of each row. */
static int32_t name_the_culprit(int32_t status, prefopt_reward *reward, const prefopt_sequences *in,
                                const int64_t *first)
{
    for (int64_t i = 0, row = 0; i < in->n; i++) {
        while (first[row + 1] <= i)
            row++;
        double score;
        prefopt_sequences one = pf_sequences_part(in, i, 1);
        int32_t again = prefopt_reward_scores(reward, &one, &score);
        if (again != PREFOPT_OK)
            return pf_fail_in(again, "row %lld, completion %lld", (long long)row,
                              (long long)(i - first[row]));
    }
    return status;
}

/* score[s] of each sequence s of the samples; equal sequences are scored once. index: the place of
 * each among the distinct ones. */
static int32_t score_samples(prefopt_context *context, prefopt_reward *reward,
                             const prefopt_sequences *in, const int64_t *first, int64_t *index,
                             double *score)
{
    pf_sequence_map *map;
    PF_TRY(pf_sequence_map_create(&map, context, in, PF_MAP_SEQUENCES, index));
    const prefopt_sequences *distinct = pf_sequence_map_view(map);
    double *of_distinct = pf_alloc(context, distinct->n, sizeof *of_distinct);
    int32_t status = of_distinct == NULL ? PREFOPT_ERR_MEMORY
                                         : prefopt_reward_scores(reward, distinct, of_distinct);
    if (status == PREFOPT_OK)
        for (int64_t s = 0; s < in->n; s++)
            score[s] = of_distinct[index[s]];
    pf_free(context, of_distinct);
    pf_sequence_map_destroy(map);
    if (status == PREFOPT_ERR_NUMERIC || status == PREFOPT_ERR_ARGUMENT)
        return name_the_culprit(status, reward, in, first);
    return status;
}

static int32_t check_scores(const prefopt_columns *columns, const double *score)
{
    for (int64_t row = 0; row < columns->n_rows; row++)
        for (int64_t s = columns->first[row]; s < columns->first[row + 1]; s++)
            if (!isfinite(score[s]))
                return pf_fail(PREFOPT_ERR_NUMERIC,
                               "prefopt_rank: row %lld, completion %lld: the score is %g, expected "
                               "a finite number",
                               (long long)row, (long long)(s - columns->first[row]), score[s]);
    return PREFOPT_OK;
}

/* ---- pairs */

/* A ranking under way. The arrays have a place for each sequence of the samples. */
typedef struct {
    prefopt_context *context;
    const prefopt_ranker_options *options;
    const prefopt_dataset *samples;
    prefopt_columns columns; /* of the samples */
    prefopt_dataset *pairs;
    prefopt_rank_counts counts;

    double *score;
    int64_t *index; /* the place among the distinct sequences */
    int64_t *seen;  /* for such a place: the last row + 1 that had it */

    /* The row at hand: its distinct completions and their scores. */
    prefopt_row row;
    int64_t *distinct;
    double *distinct_score;

    int64_t token_capacity;
    int32_t *tokens; /* of a pair */
} ranking;

static double pick(const double *column, int64_t i) { return column == NULL ? NAN : column[i]; }

/* Appends a pair with everything that is known of its completions. */
static int32_t write_pair(void *payload, const pf_pair *pair)
{
    ranking *r = payload;
    const prefopt_row *from = &r->row;
    const int64_t side[2] = {pair->chosen, pair->rejected};
    int64_t offsets[3] = {0};
    double logp[2], sampler_logp[2], ref_logp[2], score[2];
    for (int32_t k = 0; k < 2; k++) {
        int64_t c = r->distinct[side[k]], first = from->completion_offsets[c];
        int64_t length = from->completion_offsets[c + 1] - first;
        offsets[k + 1] = offsets[k] + length;
        PF_TRY(pf_grow(r->context, (void **)&r->tokens, offsets[k], &r->token_capacity,
                       offsets[k + 1], sizeof *r->tokens));
        if (length > 0)
            memcpy(r->tokens + offsets[k], from->completions + first,
                   (size_t)length * sizeof *r->tokens);
        logp[k] = pick(from->logp, c);
        sampler_logp[k] = pick(from->sampler_logp, c);
        ref_logp[k] = pick(from->ref_logp, c);
        score[k] = r->distinct_score[side[k]];
    }
    prefopt_row row = {.struct_size = sizeof row,
                       .kind = PREFOPT_ROW_PAIR,
                       .n_completions = 2,
                       .prompt = from->prompt,
                       .prompt_len = from->prompt_len,
                       .completions = r->tokens,
                       .completion_offsets = offsets,
                       .weight = from->weight,
                       .label = pair->label,
                       .logp = logp,
                       .sampler_logp = sampler_logp,
                       .score = score,
                       .ref_logp = ref_logp,
                       .extra = from->extra};
    return prefopt_dataset_append(r->pairs, &row);
}

static int32_t rank_row(ranking *r, int64_t row)
{
    r->row = (prefopt_row){.struct_size = sizeof r->row};
    PF_TRY(prefopt_dataset_row(r->samples, row, &r->row));
    int64_t first = r->columns.first[row], m = 0;
    for (int64_t s = first; s < r->columns.first[row + 1]; s++) {
        if (r->seen[r->index[s]] == row + 1) {
            r->counts.duplicates++;
            continue;
        }
        r->seen[r->index[s]] = row + 1;
        r->distinct[m] = s - first;
        r->distinct_score[m++] = r->score[s];
    }
    return pf_make_pairs(r->options, row, m, r->distinct_score, write_pair, r, &r->counts);
}

/* The scores that the samples bring. */
static int32_t take_scores(ranking *r, const prefopt_sequences *in)
{
    pf_sequence_map *map;
    PF_TRY(pf_sequence_map_create(&map, r->context, in, PF_MAP_SEQUENCES, r->index));
    pf_sequence_map_destroy(map);
    for (int64_t s = 0; s < in->n; s++)
        r->score[s] = r->columns.score[s];
    return PREFOPT_OK;
}

/* reward NULL: by the samples' score column. */
static int32_t rank_all(ranking *r, prefopt_reward *reward)
{
    prefopt_sequences in = {.struct_size = sizeof in};
    PF_TRY(prefopt_dataset_sequences(r->samples, &in));
    if ((r->score = pf_alloc(r->context, in.n, sizeof *r->score)) == NULL ||
        (r->index = pf_alloc(r->context, in.n, sizeof *r->index)) == NULL ||
        (r->seen = pf_calloc(r->context, in.n, sizeof *r->seen)) == NULL ||
        (r->distinct = pf_alloc(r->context, in.n, sizeof *r->distinct)) == NULL ||
        (r->distinct_score = pf_alloc(r->context, in.n, sizeof *r->distinct_score)) == NULL)
        return PREFOPT_ERR_MEMORY;
    if (reward != NULL)
        PF_TRY(score_samples(r->context, reward, &in, r->columns.first, r->index, r->score));
    else
        PF_TRY(take_scores(r, &in));
    PF_TRY(check_scores(&r->columns, r->score));
    for (int64_t s = 0; s < in.n; s++)
        r->counts.mean_score += r->score[s] / (double)in.n;
    for (int64_t row = 0; row < r->columns.n_rows; row++)
        PF_TRY(rank_row(r, row));
    return PREFOPT_OK;
}

/* reward may be NULL: see rank_all. The options are checked, counts is NULL or our own. */
static int32_t rank(prefopt_dataset **out, prefopt_reward *reward, const prefopt_dataset *samples,
                    const prefopt_ranker_options *options, prefopt_rank_counts *counts)
{
    ranking r = {.context = samples->context,
                 .options = options,
                 .samples = samples,
                 .columns = {.struct_size = sizeof r.columns}};
    PF_TRY(prefopt_dataset_columns(samples, &r.columns));
    PF_TRY(check_samples(&r.columns));
    PF_TRY(prefopt_dataset_create(&r.pairs, r.context));
    int32_t status = rank_all(&r, reward);
    pf_free(r.context, r.score);
    pf_free(r.context, r.index);
    pf_free(r.context, r.seen);
    pf_free(r.context, r.distinct);
    pf_free(r.context, r.distinct_score);
    pf_free(r.context, r.tokens);
    if (status != PREFOPT_OK) {
        prefopt_dataset_destroy(r.pairs);
        return status;
    }
    if (counts != NULL)
        pf_struct_write(counts, &r.counts, sizeof r.counts);
    *out = r.pairs;
    return PREFOPT_OK;
}

int32_t prefopt_rank(prefopt_dataset **out, prefopt_reward *reward, const prefopt_dataset *samples,
                     const prefopt_ranker_options *options, prefopt_rank_counts *counts)
{
    PF_REQUIRE(out);
    PF_REQUIRE(reward);
    PF_REQUIRE(samples);
    if (counts != NULL)
        PF_TRY(pf_struct_check_out(counts, sizeof *counts, "prefopt_rank_counts"));
    prefopt_ranker_options own = defaults;
    if (options != NULL)
        PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, options, "prefopt_ranker_options"));
    PF_TRY(pf_ranker_check(&own));
    return rank(out, reward, samples, &own, counts);
}

int32_t pf_rank_scored(prefopt_dataset **out, const prefopt_dataset *samples,
                       const prefopt_ranker_options *options, prefopt_rank_counts *counts)
{
    return rank(out, NULL, samples, options, counts);
}

int32_t prefopt_reward_annotate(prefopt_reward *reward, prefopt_dataset *dataset)
{
    PF_REQUIRE(reward);
    PF_REQUIRE(dataset);
    prefopt_sequences in = {.struct_size = sizeof in};
    PF_TRY(prefopt_dataset_sequences(dataset, &in));
    double *score = pf_alloc(dataset->context, in.n, sizeof *score);
    if (score == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = prefopt_reward_scores(reward, &in, score);
    if (status == PREFOPT_OK)
        status = prefopt_dataset_set_column(dataset, PREFOPT_COLUMN_SCORE, score);
    pf_free(dataset->context, score);
    return status;
}
