% Two numbers of several digits, added by hand: column by column from the right, with carries.
% Image P shows the first number's digit in column P, and image P + N the second's.
% The number of columns, places(N), and the queries, one a digit of the sum, come from outside.

nn(reader, [I], D, [0,1,2,3,4,5,6,7,8,9]) :: digit(I, D).

carry(0, 0).
carry(P, C) :- P > 0, Q is P - 1, column(Q, S), C is S // 10.

column(P, S) :-
    places(N), J is P + N,
    digit(P, X), digit(J, Y), carry(P, C),
    S is X + Y + C.

sum(P, D) :- places(N), P < N, column(P, S), D is S mod 10.
sum(N, C) :- places(N), carry(N, C).
