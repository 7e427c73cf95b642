/* The exact space: the distinct prompts of a dataset, all their completions, and the numbers of
 * policy, reference and reward, each asked for once. */
#include "report/pf_report.h"
#include "model/pf_reference.h"
#include "model/pf_reward.h"

/* Probabilities of a prompt may miss 1 by this much, as in prefopt_policy_enumerate. */
static const double SUM_SLACK = 1e-4;

/* ---- checks that the reports share */

int32_t pf_report_check_beta(double beta)
{
    if (isnan(beta))
        return pf_fail(PREFOPT_ERR_NUMERIC, "beta is NaN, expected a finite number > 0");
    if (!(beta > 0 && beta <= DBL_MAX))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "beta is %g, expected a finite number > 0", beta);
    return PREFOPT_OK;
}

static int32_t check_weight(const prefopt_columns *columns, const char *name)
{
    double total = 0;
    for (int64_t i = 0; i < columns->n_rows; i++)
        total += columns->weight[i];
    if (!(total > 0 && total <= DBL_MAX))
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: the weights of its %lld rows sum to %g, expected a finite number > 0",
                       name, (long long)columns->n_rows, total);
    return PREFOPT_OK;
}

int32_t pf_report_check_pairs(const prefopt_dataset *pairs)
{
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(prefopt_dataset_columns(pairs, &columns));
    for (int64_t i = 0; i < columns.n_rows; i++)
        if (columns.kind[i] != PREFOPT_ROW_PAIR)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "pairs: row %lld is of kind %d, expected PREFOPT_ROW_PAIR (2)",
                           (long long)i, columns.kind[i]);
    return check_weight(&columns, "pairs");
}

void pf_report_split_sides(int64_t n_pairs, const double *each, double *chosen, double *rejected)
{
    for (int64_t i = 0; i < n_pairs; i++) {
        chosen[i] = each[2 * i];
        rejected[i] = each[2 * i + 1];
    }
}

/* ---- building */

static int32_t append_prompts(pf_exact_space *space, const pf_sequence_map *map)
{
    const prefopt_sequences *distinct = pf_sequence_map_view(map);
    PF_TRY(prefopt_dataset_create(&space->prompts, space->context));
    for (int64_t x = 0; x < distinct->n; x++) {
        prefopt_row row;
        PF_TRY(prefopt_row_init(&row, sizeof row));
        row.prompt = pf_sequence_tokens(distinct, x);
        row.prompt_len = pf_sequence_len(distinct, x);
        PF_TRY(prefopt_dataset_append(space->prompts, &row));
    }
    return PREFOPT_OK;
}

/* Distinct prompts, and the weight of each. */
static int32_t find_prompts(pf_exact_space *space, const prefopt_dataset *data)
{
    prefopt_columns columns = {.struct_size = sizeof columns};
    prefopt_sequences sequences = {.struct_size = sizeof sequences};
    PF_TRY(prefopt_dataset_columns(data, &columns));
    PF_TRY(prefopt_dataset_sequences(data, &sequences));
    PF_TRY(check_weight(&columns, "the dataset"));
    pf_sequence_map *map = NULL;
    int64_t *index = pf_alloc(space->context, sequences.n, sizeof *index);
    int32_t status = PREFOPT_ERR_MEMORY;
    if (index != NULL)
        status = pf_sequence_map_create(&map, space->context, &sequences, PF_MAP_PROMPTS, index);
    if (status == PREFOPT_OK) {
        space->n_prompts = pf_sequence_map_size(map);
        status = append_prompts(space, map);
    }
    pf_sequence_map_destroy(map);
    if (status == PREFOPT_OK) {
        space->prompt_of_row =
            pf_alloc(space->context, columns.n_rows, sizeof *space->prompt_of_row);
        space->prompt_weight =
            pf_calloc(space->context, space->n_prompts, sizeof *space->prompt_weight);
        if (space->prompt_of_row == NULL || space->prompt_weight == NULL)
            status = PREFOPT_ERR_MEMORY;
    }
    for (int64_t i = 0; status == PREFOPT_OK && i < columns.n_rows; i++) {
        int64_t x = index[columns.first[i]];
        space->prompt_of_row[i] = x;
        space->prompt_weight[x] += columns.weight[i];
        space->total_weight += columns.weight[i];
    }
    pf_free(space->context, index);
    return status;
}

int32_t pf_exact_reference(const pf_exact_space *space, const prefopt_reference *reference,
                           double *ref_logp)
{
    PF_TRY(pf_reference_logprobs(reference, &space->view, ref_logp));
    for (int64_t x = 0; x < space->n_prompts; x++) {
        double total = exp(pf_log_sum_exp(space->n, ref_logp + x * space->n));
        if (!(fabs(total - 1) <= SUM_SLACK))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "reference: the probabilities of the completions of prompt %lld sum to "
                           "%.9g, expected 1 within %g",
                           (long long)x, total, SUM_SLACK);
    }
    return PREFOPT_OK;
}

static int32_t fill(pf_exact_space *space, const prefopt_dataset *data, prefopt_policy *policy,
                    const prefopt_reference *reference, prefopt_reward *reward)
{
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(find_prompts(space, data));
    PF_TRY(prefopt_policy_enumerate(&space->all, policy, space->prompts, 0));
    PF_TRY(prefopt_dataset_sequences(space->all, &space->view));
    PF_TRY(prefopt_dataset_columns(space->all, &columns));
    space->n = columns.first[1];
    for (int64_t x = 1; x < space->n_prompts; x++)
        if (columns.first[x + 1] != (x + 1) * space->n)
            return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                           "prompt %lld has %lld completions, prompt 0 has %lld: a transformer's "
                           "prompts must be of one length",
                           (long long)x, (long long)(columns.first[x + 1] - columns.first[x]),
                           (long long)space->n);
    space->logp = columns.logp;
    if (reference != NULL) {
        space->ref_logp = pf_alloc(space->context, space->view.n, sizeof *space->ref_logp);
        if (space->ref_logp == NULL)
            return PREFOPT_ERR_MEMORY;
        PF_TRY(pf_exact_reference(space, reference, space->ref_logp));
    }
    if (reward != NULL) {
        space->score = pf_alloc(space->context, space->view.n, sizeof *space->score);
        if (space->score == NULL)
            return PREFOPT_ERR_MEMORY;
        int32_t status = pf_reward_scores(reward, &space->view, space->score);
        if (status != PREFOPT_OK)
            return status < 0 ? pf_fail_in(status, "reward") : status;
    }
    return PREFOPT_OK;
}

int32_t pf_exact_space_create(pf_exact_space *space, const prefopt_dataset *data,
                              prefopt_policy *policy, const prefopt_reference *reference,
                              prefopt_reward *reward)
{
    *space =
        (pf_exact_space){.context = policy->context, .view = {.struct_size = sizeof space->view}};
    int32_t status = fill(space, data, policy, reference, reward);
    if (status != PREFOPT_OK)
        pf_exact_space_destroy(space);
    return status;
}

void pf_exact_space_destroy(pf_exact_space *space)
{
    pf_free(space->context, space->prompt_of_row);
    pf_free(space->context, space->prompt_weight);
    pf_free(space->context, space->ref_logp);
    pf_free(space->context, space->score);
    prefopt_dataset_destroy(space->prompts);
    prefopt_dataset_destroy(space->all);
}

/* ---- what is asked of it */

int32_t pf_exact_support(const pf_exact_space *space, const prefopt_dataset *data, double *support)
{
    prefopt_columns columns = {.struct_size = sizeof columns};
    prefopt_sequences sequences = {.struct_size = sizeof sequences};
    PF_TRY(prefopt_dataset_columns(data, &columns));
    PF_TRY(prefopt_dataset_sequences(data, &sequences));
    pf_sequence_map *map;
    PF_TRY(pf_sequence_map_create(&map, space->context, &space->view, PF_MAP_SEQUENCES, NULL));
    memset(support, 0, (size_t)space->view.n * sizeof *support);
    int32_t status = PREFOPT_OK;
    for (int64_t i = 0; i < columns.n_rows && status == PREFOPT_OK; i++)
        for (int64_t s = columns.first[i]; s < columns.first[i + 1]; s++) {
            /* The space's sequences are distinct, so their places in the map are their own. */
            int64_t at = pf_sequence_map_find(map, &sequences, s);
            if (at < 0) {
                status = pf_fail(PREFOPT_ERR_ARGUMENT,
                                 "row %lld: completion %lld is not of the policy's space",
                                 (long long)i, (long long)(s - columns.first[i]));
                break;
            }
            support[at] += columns.weight[i];
        }
    pf_sequence_map_destroy(map);
    return status;
}

int32_t pf_exact_soft_optimal(const pf_exact_space *space, int64_t x, double beta, double *logp,
                              double *log_z)
{
    int64_t at = x * space->n;
    int32_t status =
        prefopt_soft_optimal(space->n, space->ref_logp + at, space->score + at, beta, logp, log_z);
    return status < 0 ? pf_fail_in(status, "prompt %lld", (long long)x) : status;
}

double pf_exact_expectation(int64_t n, const double *logp, const double *value)
{
    pf_sum sum = {0, 0};
    for (int64_t y = 0; y < n; y++)
        if (logp[y] > -INFINITY)
            pf_sum_add(&sum, value[y] == -INFINITY ? -INFINITY : exp(logp[y]) * value[y]);
    return pf_sum_value(&sum);
}
