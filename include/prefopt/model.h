/* prefopt/model.h: policy, reference policy and reward model. */
#ifndef PREFOPT_MODEL_H
#define PREFOPT_MODEL_H

#include "data.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __cplusplus
}
#endif
#endif
