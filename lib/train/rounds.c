/* Rounds of the objectives that sample: draw, score, learn for some steps.
 *
 * Round r is drawn before step r * steps, from the prompts that batch r of the prompts' epochs has,
 * and gives rows; its steps then go through those rows as a trainer on them would. At a round's
 * first step it is always drawn, also when that step failed and is tried again: what it draws then
 * depends on the policy as it is. */
#include <math.h>

#include "online/pf_online.h"
#include "train/pf_rank_reference.h"
#include "train/pf_sampled.h"

void pf_sampled_forget(prefopt_trainer *trainer)
{
    pf_sampled *s = trainer->state;
    pf_trainer_clear_rows(trainer);
    pf_round_facts_clear(&trainer->round);
    prefopt_dataset_destroy(s->at.data);
    pf_free(trainer->context, s->at.ref);
    pf_free(trainer->context, s->at.advantage);
    s->at = (pf_round){.number = -1};
}

/* Samples of a rank's part of the prompts, their scores in the score column. */
static int32_t draw_part(prefopt_trainer *trainer, const pf_sampled *s, const pf_batch *prompts,
                         const prefopt_dataset *chosen, int64_t number, prefopt_dataset **samples)
{
    double start = pf_now();
    const pf_ranks *ranks = &trainer->ranks;
    prefopt_sampler_options options = s->sampler;
    options.round += (uint64_t)number;
    int64_t first, n;
    pf_ranks_part(ranks, ranks->calls.rank, prefopt_dataset_size(chosen), &first, &n);
    int32_t status = pf_sample_rows(samples, trainer->model.policy, chosen, &options, first, n);
    double drawn = pf_now();
    trainer->seconds_sampling += drawn - start;
    if (status != PREFOPT_OK)
        return status;
    status = n > 0 ? pf_sampled_score(s, prompts, first, *samples) : PREFOPT_OK;
    trainer->seconds_scoring += pf_now() - drawn;
    if (status != PREFOPT_OK)
        prefopt_dataset_destroy(*samples);
    return status;
}

/* Samples of the prompts on all ranks, their scores in the score column. */
static int32_t draw(prefopt_trainer *trainer, const pf_sampled *s, const pf_batch *prompts,
                    int64_t number, prefopt_dataset **samples)
{
    prefopt_dataset *chosen = s->prompts;
    int32_t status = PREFOPT_OK;
    if (prompts->rows != NULL)
        status = prefopt_dataset_select(&chosen, s->prompts, prompts->rows, prompts->n);
    if (status == PREFOPT_OK)
        status = draw_part(trainer, s, prompts, chosen, number, samples);
    status = pf_ranks_gather(trainer, status, chosen, s->sampler.n, samples);
    if (chosen != s->prompts)
        prefopt_dataset_destroy(chosen);
    return status;
}

static int64_t tokens_of(const prefopt_dataset *samples)
{
    prefopt_sequences in = {.struct_size = sizeof in};
    return prefopt_dataset_sequences(samples, &in) == PREFOPT_OK ? pf_sequences_tokens(&in) : 0;
}

/* s->at.data from the samples, which it takes. */
static int32_t choose_data(prefopt_trainer *trainer, pf_sampled *s, prefopt_dataset *samples,
                           int64_t number, pf_moments *after)
{
    double start = pf_now();
    trainer->round.tokens = tokens_of(samples);
    int32_t status = pf_sampled_rewards(s, &s->before, samples, &trainer->round, after);
    if (status == PREFOPT_OK && s->select != NULL)
        status = s->select(trainer, samples, number, &s->at.data);
    if (status != PREFOPT_OK || s->select != NULL)
        prefopt_dataset_destroy(samples);
    else
        s->at.data = samples;
    trainer->seconds_scoring += pf_now() - start;
    return status;
}

/* The reference's numbers of the rows' distinct sequences into s->at.ref, shared by the ranks:
 * their rows are the same, and so are policies that were frozen on the way. */
static int32_t reference_logprobs(prefopt_trainer *trainer, const pf_sampled *s, int32_t status)
{
    const prefopt_sequences *distinct = pf_sequence_map_view(trainer->rows->map);
    if (pf_ranks_alone(&trainer->ranks))
        return status != PREFOPT_OK ? status
                                    : pf_reference_logprobs(s->reference, distinct, s->at.ref);
    for (int64_t i = 0; i < distinct->n && status == PREFOPT_OK; i++)
        s->at.ref[i] = NAN;
    pf_shared_reference shared = {.reference = s->reference,
                                  .distinct = distinct,
                                  .value = s->at.ref,
                                  .hash = s->refreshed ? 1 : s->reference_hash};
    return pf_ranks_ask(&trainer->ranks, trainer->context, status, &shared);
}

/* s->at.ref of the rows' distinct sequences, and the data's ref_logp column. */
static int32_t ask_reference(prefopt_trainer *trainer, pf_sampled *s)
{
    double start = pf_now();
    const pf_rows *rows = trainer->rows;
    double *column = pf_alloc(trainer->context, rows->n_slots, sizeof *column);
    s->at.ref = pf_alloc(trainer->context, rows->n_distinct, sizeof *s->at.ref);
    int32_t status = column == NULL || s->at.ref == NULL ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
    status = reference_logprobs(trainer, s, status);
    if (status == PREFOPT_OK) {
        for (int64_t i = 0; i < rows->n_slots; i++)
            column[i] = s->at.ref[rows->sequence[i]];
        status = prefopt_dataset_set_column(s->at.data, PREFOPT_COLUMN_REF_LOGP, column);
    }
    pf_free(trainer->context, column);
    trainer->seconds_scoring += pf_now() - start;
    return status;
}

static int32_t refresh(prefopt_trainer *trainer, pf_sampled *s, int64_t number)
{
    if (s->rounds.refresh == 0 || number == 0 || number % s->rounds.refresh != 0)
        return PREFOPT_OK;
    prefopt_reference *fresh;
    PF_TRY(prefopt_reference_freeze(&fresh, trainer->model.policy));
    prefopt_reference_destroy(s->reference);
    s->reference = fresh;
    s->refreshed = true;
    return PREFOPT_OK;
}

/* The first round's order is that of a trainer on the same rows with the same seed. */
int32_t pf_sampled_lay_out(prefopt_trainer *trainer)
{
    const pf_sampled *s = trainer->state;
    const prefopt_train_options *o = &trainer->options;
    int64_t number = s->at.number;
    uint64_t seed = number == 0 ? o->seed : pf_stream(o->seed, (uint64_t)number);
    PF_TRY(pf_trainer_lay_out(trainer, s->at.data, s->rounds.steps == 1 ? 0 : o->batch, seed));
    return pf_trainer_parts(trainer);
}

static int32_t draw_round(prefopt_trainer *trainer, pf_sampled *s, int64_t number)
{
    pf_batch prompts;
    prefopt_dataset *samples;
    pf_moments after;
    pf_batches_take(&s->draws, number, &prompts);
    PF_TRY(refresh(trainer, s, number));
    PF_TRY(draw(trainer, s, &prompts, number, &samples));
    PF_TRY(choose_data(trainer, s, samples, number, &after));
    s->at.number = trainer->round.number = number;
    if (prefopt_dataset_size(s->at.data) > 0) {
        PF_TRY(pf_sampled_lay_out(trainer));
        if (s->reference != NULL)
            PF_TRY(ask_reference(trainer, s));
        PF_TRY(s->prepare(trainer));
    }
    s->after = after;
    return PREFOPT_OK;
}

int32_t pf_sampled_begin(prefopt_trainer *trainer)
{
    pf_sampled *s = trainer->state;
    int64_t number = trainer->step / s->rounds.steps, place = trainer->step % s->rounds.steps;
    if (place == 0 || s->at.number != number) {
        /* A round that is drawn again has not been counted before. */
        if (s->at.number >= 0 && s->at.number != number)
            s->before = s->after;
        pf_sampled_forget(trainer);
        /* Ranks keep a round together or forget it together. */
        int32_t status = pf_ranks_agree(&trainer->ranks, draw_round(trainer, s, number));
        if (status != PREFOPT_OK) {
            pf_sampled_forget(trainer);
            return status;
        }
    }
    trainer->batch = (pf_batch){0};
    if (trainer->rows != NULL)
        pf_batches_take(&trainer->batches, place, &trainer->batch);
    return PREFOPT_OK;
}

int32_t pf_sampled_room(prefopt_context *context, double **array, int64_t *capacity, int64_t n)
{
    if (n <= *capacity)
        return PREFOPT_OK;
    double *larger = pf_alloc(context, n, sizeof *larger);
    if (larger == NULL)
        return PREFOPT_ERR_MEMORY;
    pf_free(context, *array);
    *array = larger;
    *capacity = n;
    return PREFOPT_OK;
}
