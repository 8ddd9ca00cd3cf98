"""What is known of which program and which model pays for which sort of job."""
