/* What lives as long as the program, however that ends. */
#ifndef EXAMPLE_KEPT_H
#define EXAMPLE_KEPT_H

/* The pointer itself, which give_back gets when the program ends, by exit too. NULL (there was no
 * memory for it) ends the program with one line on stderr. From one thread alone. */
void *kept(void *pointer, void (*give_back)(void *pointer));

#endif
