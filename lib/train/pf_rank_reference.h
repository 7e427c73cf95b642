/* Internal: ranks that share what a reference is asked (rank_reference.c). */
#ifndef PF_RANK_REFERENCE_H
#define PF_RANK_REFERENCE_H

#include "train/pf_train.h"

typedef struct pf_shared_reference {
    const prefopt_reference *reference; /* NULL: there is none, and nothing is asked */
    const prefopt_sequences *distinct;
    double *value;                /* distinct->n; NaN: to be asked for */
    uint64_t data;                /* hash of what must be the same on all ranks */
    uint64_t hash;                /* the reference's; 0: none, and each rank asks its own for all */
    int64_t rows;                 /* of the data, for progress and texts; 0: no matter */
    prefopt_annotate_fn progress; /* may be NULL */
    void *payload;
} pf_shared_reference;

/* All values on all ranks, which call it together; a status that is not PREFOPT_OK is a failure of
 * all. STOPPED: some are NaN still. */
int32_t pf_ranks_ask(pf_ranks *ranks, prefopt_context *context, int32_t status,
                     const pf_shared_reference *shared);

/* value[n_distinct] of the trainer's rows, by keys in the data where they are; reference may be
 * NULL. On several ranks a call of all of them. */
int32_t pf_trainer_reference(prefopt_trainer *trainer, const prefopt_reference *reference,
                             const prefopt_dataset *data, double *value);

#endif
