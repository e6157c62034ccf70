echo "Hello, $1, from an image of two files."
