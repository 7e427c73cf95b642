/* prefopt/loss.h: the objectives: pure functions of log-probabilities and scores. */
#ifndef PREFOPT_LOSS_H
#define PREFOPT_LOSS_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __cplusplus
}
#endif

/* The rest of the room: KL divergences and policy gradients. */
#include "kl.h"
#include "policy_gradient.h"

#endif
