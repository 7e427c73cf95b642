/* Internal: the state of an exact fit, shared by its two phases. */
#ifndef PF_FIT_H
#define PF_FIT_H

#include "train/pf_train.h"

enum { PF_FIT_VECTORS = 9, PF_FIT_TEXT = 512 };

typedef struct pf_fit {
    prefopt_trainer *trainer;
    int64_t n_model, n; /* parameters that move: of the model, and with the objective's own */
    int64_t *active;    /* n_model: which of the model's */
    int64_t stride;     /* of the vectors in memory */
    double *memory;     /* PF_FIT_VECTORS vectors; the first two are x and g */
    double *x, *g;      /* the point accepted last, its gradient */
    int64_t iterations;
    int32_t status;         /* why a callback ended the fit */
    prefopt_progress stats; /* of the last evaluation */
} pf_fit;

/* Writes x into the model and evaluates. NUMERIC when loss or gradient is not finite. */
int32_t pf_fit_evaluate(pf_fit *fit, const double *x, double *loss, double *g);
double pf_fit_norm(int64_t n, const double *g);
/* Counts an iteration and tells the caller's callback; false: it asked to stop (fit->status). */
bool pf_fit_report(pf_fit *fit, double norm);

/* The finish (newton.c): from fit->x and fit->g down to the tolerance, or as far as it goes. Leaves
 * the best point in fit->x, fit->g and *norm. */
int32_t pf_fit_newton(pf_fit *fit, double *norm);

/* Copies the thread's error text. */
static inline void pf_fit_keep_text(char text[PF_FIT_TEXT])
{
    strncpy(text, prefopt_last_error(), PF_FIT_TEXT - 1);
    text[PF_FIT_TEXT - 1] = 0;
}

#endif
