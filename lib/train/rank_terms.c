/* The start of a run on several ranks: what must be the same is, and the parameters are rank 0's.
 */
#include <stdlib.h>

#include "pf_config.h"
#include "train/pf_evaluation.h"
#include "train/pf_saved.h"

#if PF_HAVE_JSON
#include <jansson.h>
#endif

/* What must be the same on all ranks, and has a fixed size. */
typedef struct {
    int64_t n_steps, step, parameters, dtype, rows;
    int64_t held_out, eval_every, eval_step, stale, waited; /* held_out: its rows; 0: none is set */
    int64_t patience;
    uint64_t data_hash, held_out_hash;
    prefopt_train_options options; /* without what each rank may have of its own */
} terms;

static terms terms_of(const prefopt_trainer *trainer, int64_t n_steps)
{
    terms t;
    memset(&t, 0, sizeof t);
    t.n_steps = n_steps;
    t.step = trainer->step;
    t.parameters = trainer->optimiser.slots[0].n;
    t.dtype = trainer->optimiser.slots[0].dtype;
    t.rows = trainer->batches.n;
    t.data_hash = trainer->data_hash;
    const pf_evaluation *e = trainer->evaluation;
    if (e != NULL) {
        t.held_out = e->held_out->rows->n;
        t.held_out_hash = e->held_out->data_hash;
        t.eval_every = e->options.every;
        t.patience = e->options.patience;
        t.eval_step = e->step;
        t.stale = e->stale;
        t.waited = e->waited;
    }
    t.options = trainer->options;
    t.options.progress = NULL;
    t.options.progress_payload = NULL;
    t.options.progress_every = 0;
    t.options.micro_batch = 0; /* rounding alone */
    t.options.collective = NULL;
    return t;
}

static int32_t differs(const char *field, double here, double there)
{
    return pf_fail(PREFOPT_ERR_STATE, "%s is %.17g, but %.17g on rank 0", field, here, there);
}

static int32_t compare(const terms *here, const terms *there)
{
    const struct {
        const char *field;
        double here, there;
    } numbers[] = {
        {"n_steps", (double)here->n_steps, (double)there->n_steps},
        {"the number of steps taken", (double)here->step, (double)there->step},
        {"the number of parameters", (double)here->parameters, (double)there->parameters},
        {"their dtype", (double)here->dtype, (double)there->dtype},
        {"the number of rows", (double)here->rows, (double)there->rows},
        {"the number of held-out rows", (double)here->held_out, (double)there->held_out},
        {"every", (double)here->eval_every, (double)there->eval_every},
        {"patience", (double)here->patience, (double)there->patience},
        {"the step of the last evaluation", (double)here->eval_step, (double)there->eval_step},
        {"whether it holds no more", (double)here->stale, (double)there->stale},
        {"the number of evaluations waited", (double)here->waited, (double)there->waited},
        {"batch", (double)here->options.batch, (double)there->options.batch},
        {"seed", (double)here->options.seed, (double)there->options.seed},
        {"learning_rate", here->options.learning_rate, there->options.learning_rate},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].here != numbers[i].there)
            return differs(numbers[i].field, numbers[i].here, numbers[i].there);
    if (here->data_hash != there->data_hash)
        return pf_fail(PREFOPT_ERR_STATE, "the data are not those of rank 0");
    if (here->held_out_hash != there->held_out_hash)
        return pf_fail(PREFOPT_ERR_STATE, "the held-out data are not those of rank 0");
    if (!PF_HAVE_JSON && memcmp(here, there, sizeof *here) != 0)
        return pf_fail(PREFOPT_ERR_STATE, "the training options are not those of rank 0");
    return PREFOPT_OK;
}

/* ---- what the run is, field by field, as saved trainers tell it */

#if PF_HAVE_JSON

/* Rank 0's description as text on all ranks, *n bytes; the caller's to free. */
static int32_t first_description(prefopt_trainer *trainer, const pf_describe *own, char **text,
                                 int64_t *n)
{
    char *dumped = json_dumps(own->fields, JSON_COMPACT);
    int32_t status = dumped != NULL ? PREFOPT_OK : pf_fail(PREFOPT_ERR_MEMORY, "out of memory");
    *n = dumped != NULL ? (int64_t)strlen(dumped) : 0;
    status = pf_ranks_exchange(&trainer->ranks, status, NULL);
    if (status == PREFOPT_OK)
        status = pf_ranks_broadcast(&trainer->ranks, n, sizeof *n, 0);
    if (status == PREFOPT_OK) {
        *text = pf_alloc(trainer->context, *n, 1);
        status = pf_ranks_exchange(&trainer->ranks, *text != NULL ? PREFOPT_OK : PREFOPT_ERR_MEMORY,
                                   NULL);
    }
    if (status == PREFOPT_OK) {
        if (trainer->ranks.calls.rank == 0)
            memcpy(*text, dumped, (size_t)*n);
        status = pf_ranks_broadcast(&trainer->ranks, *text, *n, 0);
    }
    free(dumped);
    return status;
}

static int32_t compare_descriptions(prefopt_trainer *trainer)
{
    pf_describe own;
    char *text = NULL;
    int64_t n = 0;
    int32_t status = pf_ranks_exchange(&trainer->ranks, pf_trainer_describe(trainer, &own), NULL);
    if (status == PREFOPT_OK)
        status = first_description(trainer, &own, &text, &n);
    if (status == PREFOPT_OK) {
        json_t *there = json_loadb(text, (size_t)n, 0, NULL);
        status = there != NULL ? pf_describe_compare("rank 0", there, &own)
                               : pf_fail(PREFOPT_ERR_MEMORY, "out of memory for JSON");
        json_decref(there);
        status = pf_ranks_exchange(&trainer->ranks, status, NULL);
    }
    pf_free(trainer->context, text);
    pf_describe_clear(&own);
    return status;
}

#else
static int32_t compare_descriptions(prefopt_trainer *trainer)
{
    (void)trainer;
    return PREFOPT_OK;
}
#endif

/* ---- */

/* Rank 0's parameters on all ranks. */
static int32_t share_parameters(prefopt_trainer *trainer)
{
    prefopt_parameters now = {.struct_size = sizeof now};
    pf_optimiser *optimiser = &trainer->optimiser;
    int32_t status = pf_trained_parameters(&trainer->model, &now);
    PF_TRY(pf_ranks_exchange(&trainer->ranks, status, NULL));
    optimiser->slots[0].value = now.value;
    for (int32_t i = 0; i < optimiser->n_slots; i++) {
        const pf_slot *slot = &optimiser->slots[i];
        int64_t size = slot->dtype == PREFOPT_F32 ? sizeof(float) : sizeof(double);
        PF_TRY(pf_ranks_broadcast(&trainer->ranks, slot->value, slot->n * size, 0));
    }
    PF_TRY(pf_ranks_exchange(&trainer->ranks, pf_trained_updated(&trainer->model), NULL));
    trainer->ranks.shared = true;
    return PREFOPT_OK;
}

int32_t pf_ranks_begin(prefopt_trainer *trainer, int64_t n_steps, int32_t status)
{
    if (pf_ranks_alone(&trainer->ranks))
        return status;
    terms here = terms_of(trainer, n_steps), there = here;
    PF_TRY(pf_ranks_broadcast(&trainer->ranks, &there, sizeof there, 0));
    if (status == PREFOPT_OK)
        status = compare(&here, &there);
    PF_TRY(pf_ranks_exchange(&trainer->ranks, status, NULL));
    PF_TRY(compare_descriptions(trainer));
    return trainer->ranks.shared ? PREFOPT_OK : share_parameters(trainer);
}
