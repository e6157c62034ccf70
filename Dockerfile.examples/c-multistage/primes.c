/* Print the primes up to the first argument. */
#include <stdio.h>
#include <stdlib.h>

static int is_prime(long n)
{
    for (long d = 2; d * d <= n; d++)
        if (n % d == 0)
            return 0;
    return n > 1;
}

int main(int argc, char **argv)
{
    long limit = argc > 1 ? strtol(argv[1], NULL, 10) : 20;
    printf("primes %s:", VERSION);
    for (long n = 2; n <= limit; n++)
        if (is_prime(n))
            printf(" %ld", n);
    putchar('\n');
    return 0;
}
