/* prefopt/train.h: trainers, exact fits, strengths. */
#ifndef PREFOPT_TRAIN_H
#define PREFOPT_TRAIN_H

#include "loss.h"
#include "online.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __cplusplus
}
#endif
#endif
