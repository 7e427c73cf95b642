/* Rounds in checkpoints: which round is at hand, what it learns from, the rewards seen so far, and
 * the reference where that is no longer the one that was handed over. */
#include "train/pf_sampled.h"
#include "train/pf_saved.h"

void pf_sampled_describe(const pf_sampled *s, pf_describe *to)
{
    static const pf_field fields[] = {PF_FIELD(prefopt_round_options, reward_scale),
                                      PF_FIELD(prefopt_round_options, prompts),
                                      PF_FIELD(prefopt_round_options, steps),
                                      PF_FIELD(prefopt_round_options, refresh),
                                      PF_FIELD(prefopt_round_options, missing_end_penalty),
                                      PF_FIELD(prefopt_round_options, reward_clip)};
    _Static_assert(sizeof(prefopt_round_options) == 48, "a field of prefopt_round_options");
    pf_describe_i64(to, "rows", prefopt_dataset_size(s->prompts));
    pf_describe_sampler(to, &s->sampler);
    pf_describe_fields(to, fields, sizeof fields / sizeof *fields, &s->rounds);
    pf_describe_bytes(to, "reward_model", &s->reward_hash, (int64_t)sizeof s->reward_hash);
    pf_describe_bytes(to, "reference", &s->reference_hash, (int64_t)sizeof s->reference_hash);
}

/* The names of a pair of moments' numbers and of the facts, in the order of their fields. */
static const char *const moment_names[2][3] = {{"before.n", "before.mean", "before.square"},
                                               {"after.n", "after.mean", "after.square"}};
enum { FACT_COUNTS = 4, FACT_MEANS = 5 };
static const char *const count_names[FACT_COUNTS] = {"tokens", "pairs", "ties", "duplicates"};
static const char *const mean_names[FACT_MEANS] = {"kl", "reward", "ended", "score_mean",
                                                   "score_sd"};

/* ---- saving */

static int32_t save_facts(const pf_round_facts *f, pf_save *to)
{
    const int64_t counts[FACT_COUNTS] = {f->tokens, f->pairs, f->ties, f->duplicates};
    const double means[FACT_MEANS] = {f->kl, f->reward, f->ended, f->score_mean, f->score_sd};
    for (int32_t i = 0; i < FACT_COUNTS; i++)
        PF_TRY(pf_save_i64(to, count_names[i], counts[i]));
    for (int32_t i = 0; i < FACT_MEANS; i++)
        PF_TRY(pf_save_f64(to, mean_names[i], means[i]));
    return PREFOPT_OK;
}

int32_t pf_sampled_save(const prefopt_trainer *trainer, pf_save *to)
{
    const pf_sampled *s = trainer->state;
    const pf_moments *const moments[2] = {&s->before, &s->after};
    PF_TRY(pf_save_i64(to, "number", s->at.number));
    for (int32_t i = 0; i < 2; i++) {
        PF_TRY(pf_save_i64(to, moment_names[i][0], moments[i]->n));
        PF_TRY(pf_save_f64(to, moment_names[i][1], moments[i]->mean));
        PF_TRY(pf_save_f64(to, moment_names[i][2], moments[i]->square));
    }
    if (s->refreshed)
        PF_TRY(pf_save_reference(to, "refreshed", s->reference));
    /* The next step draws a round of its own. */
    if (s->at.number < 0 || trainer->step % s->rounds.steps == 0)
        return PREFOPT_OK;
    PF_TRY(save_facts(&trainer->round, to));
    return trainer->rows != NULL ? pf_save_dataset(to, "round", s->at.data) : PREFOPT_OK;
}

/* ---- going on */

/* What a restored trainer will have, read before anything is changed. */
typedef struct {
    pf_moments moments[2];
    int64_t number;
    pf_round_facts facts;
    prefopt_dataset *data;        /* owned, or NULL */
    prefopt_reference *reference; /* owned, or NULL: the one that was handed over */
} reading;

static int32_t read_facts(const pf_saved *from, pf_round_facts *f)
{
    int64_t *const counts[FACT_COUNTS] = {&f->tokens, &f->pairs, &f->ties, &f->duplicates};
    double *const means[FACT_MEANS] = {&f->kl, &f->reward, &f->ended, &f->score_mean, &f->score_sd};
    for (int32_t i = 0; i < FACT_COUNTS; i++)
        PF_TRY(pf_saved_i64(from, count_names[i], counts[i]));
    for (int32_t i = 0; i < FACT_MEANS; i++)
        PF_TRY(pf_saved_f64(from, mean_names[i], means[i]));
    return PREFOPT_OK;
}

static int32_t read_all(const prefopt_trainer *trainer, const pf_saved *from, reading *in)
{
    const pf_sampled *s = trainer->state;
    int64_t steps = s->rounds.steps, place = trainer->step % steps;
    PF_TRY(pf_saved_i64(from, "number", &in->number));
    for (int32_t i = 0; i < 2; i++) {
        PF_TRY(pf_saved_i64(from, moment_names[i][0], &in->moments[i].n));
        PF_TRY(pf_saved_f64(from, moment_names[i][1], &in->moments[i].mean));
        PF_TRY(pf_saved_f64(from, moment_names[i][2], &in->moments[i].square));
    }
    if (place != 0 && in->number != trainer->step / steps)
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: %s.number is %lld, expected %lld at step %lld",
                       from->trainer_path, from->prefix, (long long)in->number,
                       (long long)(trainer->step / steps), (long long)trainer->step);
    if (place != 0)
        PF_TRY(read_facts(from, &in->facts));
    if (place != 0 && pf_saved_has(from, "round"))
        PF_TRY(pf_saved_dataset(from, "round", &in->data));
    if (!pf_saved_has(from, "refreshed") && s->refreshed)
        return pf_fail(PREFOPT_ERR_STATE,
                       "%s: the reference is the one that was handed over, but this trainer has "
                       "refreshed its own: make it anew",
                       from->trainer_path);
    if (pf_saved_has(from, "refreshed"))
        PF_TRY(pf_saved_reference(from, "refreshed", trainer->model.policy, &in->reference));
    return PREFOPT_OK;
}

/* The rows of s->at.data, their references from its column, and the objective's own numbers. */
static int32_t rebuild(prefopt_trainer *trainer)
{
    pf_sampled *s = trainer->state;
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(prefopt_dataset_columns(s->at.data, &columns));
    PF_TRY(pf_sampled_lay_out(trainer));
    if (s->reference != NULL) {
        const pf_rows *rows = trainer->rows;
        s->at.ref = pf_alloc(trainer->context, rows->n_distinct, sizeof *s->at.ref);
        if (s->at.ref == NULL)
            return PREFOPT_ERR_MEMORY;
        for (int64_t i = 0; i < rows->n_slots; i++)
            s->at.ref[rows->sequence[i]] = columns.ref_logp[i];
    }
    return s->prepare(trainer);
}

/* The rows of a trainer and the round that they are of, taken out and put back. */
typedef struct {
    pf_rows *rows;
    pf_batches batches;
    pf_parts parts, rank_part;
    double *score, *grad_score;
    pf_round at;
    pf_round_facts facts;
} held_round;

static held_round take_out(prefopt_trainer *trainer)
{
    pf_sampled *s = trainer->state;
    held_round held = {.rows = trainer->rows,
                       .batches = trainer->batches,
                       .parts = trainer->parts,
                       .rank_part = trainer->ranks.part,
                       .score = trainer->score,
                       .grad_score = trainer->grad_score,
                       .at = s->at,
                       .facts = trainer->round};
    trainer->rows = NULL;
    trainer->batches = (pf_batches){.context = trainer->context};
    trainer->parts = trainer->ranks.part = (pf_parts){0};
    trainer->score = trainer->grad_score = NULL;
    s->at = (pf_round){.number = -1};
    return held;
}

static void put_back(prefopt_trainer *trainer, const held_round *held)
{
    pf_sampled_forget(trainer);
    pf_sampled *s = trainer->state;
    trainer->rows = held->rows;
    trainer->batches = held->batches;
    trainer->parts = held->parts;
    trainer->ranks.part = held->rank_part;
    trainer->score = held->score;
    trainer->grad_score = held->grad_score;
    s->at = held->at;
    trainer->round = held->facts;
}

static int32_t take_over(prefopt_trainer *trainer, reading *in)
{
    pf_sampled *s = trainer->state;
    held_round held = take_out(trainer);
    s->at.number = in->number;
    s->at.data = in->data;
    in->data = NULL;
    pf_round_facts_clear(&trainer->round);
    int32_t status = s->at.data != NULL ? rebuild(trainer) : PREFOPT_OK;
    if (status != PREFOPT_OK) {
        put_back(trainer, &held);
        return status;
    }
    if (trainer->step % s->rounds.steps != 0) {
        in->facts.number = in->number;
        trainer->round = in->facts;
    }
    /* The old one is given back: for that it is put in place for a moment. */
    held_round fresh = take_out(trainer);
    put_back(trainer, &held);
    put_back(trainer, &fresh);
    s->before = in->moments[0];
    s->after = in->moments[1];
    if (in->reference != NULL) {
        prefopt_reference_destroy(s->reference);
        s->reference = in->reference;
        s->refreshed = true;
        in->reference = NULL;
    }
    if (s->at.number >= 0) {
        pf_batch prompts; /* the numbers of its prompts, for error texts */
        pf_batches_take(&s->draws, s->at.number, &prompts);
    }
    return PREFOPT_OK;
}

int32_t pf_sampled_restore(prefopt_trainer *trainer, const pf_saved *from)
{
    reading in = {.number = -1};
    int32_t status = read_all(trainer, from, &in);
    if (status == PREFOPT_OK)
        status = take_over(trainer, &in);
    prefopt_dataset_destroy(in.data);
    prefopt_reference_destroy(in.reference);
    return status;
}
