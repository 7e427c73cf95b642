/* Displacement: how training moved the log-probabilities of what the data hold, and the mass of
 * what they do not. */
#include "report/pf_report.h"
#include "model/pf_reference.h"

/* log pi_after - log pi_before; "never" that stays "never" has not moved. */
static double change(double before, double after) { return before == after ? 0 : after - before; }

typedef struct {
    double weight;
    pf_sum sum;
    int64_t up, down; /* rows that moved by +INFINITY, -INFINITY; -1: none */
} moved;

static void moved_add(moved *m, int64_t row, double weight, double by)
{
    m->weight += weight;
    if (isinf(by))
        *(by > 0 ? &m->up : &m->down) = row;
    else
        pf_sum_add(&m->sum, weight * by);
}

static int32_t moved_mean(const moved *m, const char *side, double *mean)
{
    if (m->up >= 0 && m->down >= 0)
        return pf_fail(PREFOPT_ERR_NUMERIC,
                       "the %s completion of row %lld rose from probability 0 and that of row %lld "
                       "fell to it: the mean change has no value",
                       side, (long long)m->up, (long long)m->down);
    *mean = m->up >= 0 ? INFINITY : m->down >= 0 ? -INFINITY : pf_sum_value(&m->sum) / m->weight;
    return PREFOPT_OK;
}

/* before, after: one a sequence of the pairs. */
static int32_t of_pairs(const prefopt_dataset *pairs, const double *before, const double *after,
                        prefopt_displacement *own)
{
    moved chosen = {.up = -1, .down = -1}, rejected = {.up = -1, .down = -1};
    pf_sum fell = {0, 0}, both = {0, 0};
    own->worst_pair = -1;
    for (int64_t i = 0; i < pairs->n_rows; i++) {
        double weight = pairs->weight[i];
        if (!(weight > 0))
            continue;
        double c = change(before[2 * i], after[2 * i]);
        double r = change(before[2 * i + 1], after[2 * i + 1]);
        own->n_pairs++;
        moved_add(&chosen, i, weight, c);
        moved_add(&rejected, i, weight, r);
        pf_sum_add(&fell, c < 0 ? weight : 0);
        pf_sum_add(&both, c < 0 && r < 0 ? weight : 0);
        if (own->worst_pair < 0 || c < own->worst_chosen) {
            own->worst_chosen = c;
            own->worst_pair = i;
        }
    }
    PF_TRY(moved_mean(&chosen, "chosen", &own->chosen));
    PF_TRY(moved_mean(&rejected, "rejected", &own->rejected));
    own->chosen_fell = pf_sum_value(&fell) / chosen.weight;
    own->both_fell = pf_sum_value(&both) / chosen.weight;
    return PREFOPT_OK;
}

/* ---- what no row holds */

static void of_unseen(const pf_exact_space *space, const double *support, const double *before,
                      prefopt_displacement *own)
{
    pf_sum mass_before = {0, 0}, mass_after = {0, 0};
    own->max_unseen_log_ratio = -INFINITY;
    for (int64_t x = 0; x < space->n_prompts; x++) {
        double share = pf_exact_share(space, x);
        if (!(share > 0))
            continue;
        for (int64_t s = x * space->n; s < (x + 1) * space->n; s++) {
            if (support[s] > 0)
                continue;
            pf_sum_add(&mass_before, share * exp(before[s]));
            pf_sum_add(&mass_after, share * exp(space->logp[s]));
            if (space->logp[s] > -INFINITY)
                own->max_unseen_log_ratio =
                    fmax(own->max_unseen_log_ratio, space->logp[s] - before[s]);
        }
    }
    own->unseen_mass_before = pf_sum_value(&mass_before);
    own->unseen_mass_after = pf_sum_value(&mass_after);
}

static int32_t unseen(const prefopt_dataset *pairs, const prefopt_reference *before,
                      prefopt_policy *after, prefopt_displacement *own)
{
    own->unseen_mass_before = own->unseen_mass_after = own->max_unseen_log_ratio = NAN;
    pf_exact_space space;
    int32_t status = pf_exact_space_create(&space, pairs, after, NULL, NULL);
    if (status == PREFOPT_ERR_UNSUPPORTED)
        return PREFOPT_OK; /* no space, one too large, or not the same for all prompts */
    PF_TRY(status);
    double *support = pf_alloc(space.context, space.view.n, sizeof *support);
    double *ref_logp = pf_alloc(space.context, space.view.n, sizeof *ref_logp);
    status = support == NULL || ref_logp == NULL ? PREFOPT_ERR_MEMORY
                                                 : pf_exact_support(&space, pairs, support);
    if (status == PREFOPT_OK)
        status = pf_exact_reference(&space, before, ref_logp);
    if (status == PREFOPT_OK)
        of_unseen(&space, support, ref_logp, own);
    else if (status == PREFOPT_ERR_ARGUMENT) /* both models answered for the pairs: one of those is
                                                cut off, or `before` knows no more than those */
        status = PREFOPT_OK;
    pf_free(space.context, support);
    pf_free(space.context, ref_logp);
    pf_exact_space_destroy(&space);
    return status;
}

int32_t prefopt_report_displacement(prefopt_displacement *out, const prefopt_dataset *pairs,
                                    const prefopt_reference *before, prefopt_policy *after)
{
    PF_REQUIRE(out);
    PF_REQUIRE(pairs);
    PF_REQUIRE(before);
    PF_REQUIRE(after);
    prefopt_displacement own = {.struct_size = sizeof own};
    PF_TRY(pf_struct_check_out(out, sizeof own, "prefopt_displacement"));
    PF_TRY(pf_report_check_pairs(pairs));
    prefopt_sequences all = {.struct_size = sizeof all};
    PF_TRY(prefopt_dataset_sequences(pairs, &all));
    int64_t size;
    if (!pf_mul(all.n, 2, &size))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld sequences", (long long)all.n);
    double *scratch = pf_alloc(after->context, size, sizeof *scratch);
    if (scratch == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = pf_reference_logprobs(before, &all, scratch);
    if (status == PREFOPT_OK)
        status = pf_policy_logprobs(after, &all, scratch + all.n, NULL);
    if (status == PREFOPT_OK)
        status = of_pairs(pairs, scratch, scratch + all.n, &own);
    pf_free(after->context, scratch);
    if (status == PREFOPT_OK)
        status = unseen(pairs, before, after, &own);
    if (status == PREFOPT_OK)
        pf_struct_write(out, &own, sizeof own);
    return status;
}
