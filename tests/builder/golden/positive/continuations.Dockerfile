FROM alpine

# above
RUN echo one \
    # a comment inside
    two \

    three \	 
four \\
RUN echo five \\\
RUN echo six\
\
seven
RUN eight \
